//! `watari network`

use clap::{Args, ValueEnum};
use watari_node::api::{MachineInfo, NetworkChange, NetworkRequest};

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;

/// Plug, unplug or replace a running machine's network card
#[derive(Args)]
pub(crate) struct Network {
    /// The machine
    name: String,
    /// What to do
    action: Action,
}

#[derive(ValueEnum, Clone, Copy)]
enum Action {
    /// Plug the cable in
    Plug,
    /// Pull it
    Unplug,
    /// Replace the card by one with a new address, and plug it in
    Fresh,
}

impl Network {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let (action, done) = match self.action {
            Action::Plug => (NetworkChange::Plug, "is plugged in"),
            Action::Unplug => (NetworkChange::Unplug, "is unplugged"),
            Action::Fresh => (NetworkChange::Fresh, "has a new network card"),
        };
        let request = NetworkRequest { action };
        let machine: MachineInfo =
            context.client()?.post_with(&format!("machines/{name}/network"), &request)?;
        context.out.result(&machine, |_| format!("{name} {done}"))
    }
}
