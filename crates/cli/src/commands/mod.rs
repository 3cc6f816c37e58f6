//! The commands, one file each.

mod checkpoint;
mod clone;
mod completions;
mod console;
mod core;
mod create;
mod diff;
mod disk;
mod doctor;
mod down;
mod export;
mod gc;
mod import;
mod invite;
mod join;
mod keeper;
mod kill;
mod leave;
mod list;
mod log;
mod man;
mod network;
mod node;
mod nodes;
mod pause;
mod pull;
mod push;
mod restore;
mod resume;
mod rm;
mod screen;
mod screenshot;
mod show;
mod start;
mod stop;
mod tag;
mod teleport;
mod trust;
mod up;
mod verify;

use clap::Subcommand;

use crate::args::{Cli, Global};
use crate::client::Client;
use crate::failure::Result;
use crate::output::Output;

/// What can be done.
#[derive(Subcommand)]
pub(crate) enum Command {
    Doctor(doctor::Doctor),
    Up(up::Up),
    Down(down::Down),
    Node(node::Node),
    Create(create::Create),
    Start(start::Start),
    Stop(stop::Stop),
    Kill(kill::Kill),
    Pause(pause::Pause),
    Resume(resume::Resume),
    List(list::List),
    Show(show::Show),
    Log(log::Log),
    Diff(diff::Diff),
    Tag(tag::Tag),
    Checkpoint(checkpoint::Checkpoint),
    Restore(restore::Restore),
    Clone(clone::Clone),
    Console(console::Console),
    Screen(screen::Screen),
    Screenshot(screenshot::Screenshot),
    Disk(disk::Disk),
    Core(core::Core),
    Network(network::Network),
    Export(export::Export),
    Import(import::Import),
    Push(push::Push),
    Pull(pull::Pull),
    Trust(trust::Trust),
    Teleport(teleport::Teleport),
    Invite(invite::Invite),
    Join(join::Join),
    Nodes(nodes::Nodes),
    Leave(leave::Leave),
    Rm(rm::Rm),
    Gc(gc::Gc),
    Verify(verify::Verify),
    #[command(hide = true)]
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
    #[command(hide = true)]
    Keeper(keeper::Keeper),
}

/// What a command has at hand.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) out: Output,
}

impl Context {
    fn client(&self) -> Result<Client> {
        Client::new(&self.global)
    }
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let context = Context { out: Output::new(cli.global.json), global: cli.global };
    match cli.command {
        Command::Doctor(command) => command.run(&context),
        Command::Up(command) => command.run(&context),
        Command::Down(command) => command.run(&context),
        Command::Node(command) => command.run(&context),
        Command::Create(command) => command.run(&context),
        Command::Start(command) => command.run(&context),
        Command::Stop(command) => command.run(&context),
        Command::Kill(command) => command.run(&context),
        Command::Pause(command) => command.run(&context),
        Command::Resume(command) => command.run(&context),
        Command::List(command) => command.run(&context),
        Command::Show(command) => command.run(&context),
        Command::Log(command) => command.run(&context),
        Command::Diff(command) => command.run(&context),
        Command::Tag(command) => command.run(&context),
        Command::Checkpoint(command) => command.run(&context),
        Command::Restore(command) => command.run(&context),
        Command::Clone(command) => command.run(&context),
        Command::Console(command) => command.run(&context),
        Command::Screen(command) => command.run(&context),
        Command::Screenshot(command) => command.run(&context),
        Command::Disk(command) => command.run(&context),
        Command::Core(command) => command.run(&context),
        Command::Network(command) => command.run(&context),
        Command::Export(command) => command.run(&context),
        Command::Import(command) => command.run(&context),
        Command::Push(command) => command.run(&context),
        Command::Pull(command) => command.run(&context),
        Command::Trust(command) => command.run(&context),
        Command::Teleport(command) => command.run(&context),
        Command::Invite(command) => command.run(&context),
        Command::Join(command) => command.run(&context),
        Command::Nodes(command) => command.run(&context),
        Command::Leave(command) => command.run(&context),
        Command::Rm(command) => command.run(&context),
        Command::Gc(command) => command.run(&context),
        Command::Verify(command) => command.run(&context),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Keeper(command) => command.run(),
    }
}

/// What a machine is doing, as one word.
fn state_word(phase: watari_keeper::record::Phase) -> &'static str {
    use watari_keeper::record::Phase;
    match phase {
        Phase::Stopped => "stopped",
        Phase::Suspended => "suspended",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Crashed => "crashed",
    }
}

/// One line about what a machine is doing now.
fn state_line(machine: &watari_node::api::MachineInfo) -> String {
    let state = state_word(machine.state);
    match machine.reason.as_str() {
        reason if reason.is_empty() || reason == state => format!("{} is {state}", machine.name),
        reason => format!("{} is {state}: {reason}", machine.name),
    }
}
