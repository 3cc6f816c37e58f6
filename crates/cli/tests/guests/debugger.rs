//! A clone under gdb: whoever stops the guest, it is shown, captured and set going as if a person had done it here.

use std::path::Path;
use std::process::Stdio;

use crate::lab::programs::{Running, program, run};
use crate::lab::{Lab, machine};

const COUNTER: &str = "watari.run=counter";

fn attached<'a>(socket: &'a str, commands: &[&'a str]) -> Vec<String> {
    let attach = format!("target remote {socket}");
    let all = std::iter::once(attach.as_str()).chain(commands.iter().copied());
    let commands = all.flat_map(|command| ["-ex".to_owned(), command.to_owned()]);
    ["-nx", "-batch"].map(str::to_owned).into_iter().chain(commands).collect()
}

fn debugged_clone(lab: &Lab, name: &str) -> String {
    let clone = lab.ok(&["clone", "m", name, "--gdb"]);
    assert_eq!(clone["state"], "paused", "{clone}");
    let socket = clone["gdb"].as_str().unwrap().to_owned();
    assert_eq!(Path::new(&socket), lab.home().join("run").join(name).join("gdb"));
    socket
}

#[test]
fn a_clone_is_held_for_gdb_which_may_stop_it_and_set_it_going() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    let refused = lab.fails(&["clone", "m", "c", "--gdb", "--network", "fresh"]);
    assert_eq!(refused["kind"], "bad_request");
    let socket = debugged_clone(&lab, "c");
    assert_eq!(lab.serial("c"), "", "it ran");

    // Registers can be read and single instructions be run; the guest goes on once gdb lets go of it.
    let console = lab.listen("c");
    let said = run("gdb", attached(&socket, &["print/x $rip", "stepi", "print/x $rip", "detach"]));
    let rips: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix('$')?.split("= ").nth(1)).collect();
    assert!(rips.len() == 2 && rips.iter().all(|rip| *rip != "0x0"), "{said}");
    console.next_number("tick ");
    lab.wait_for_state("c", "running");
    lab.ok(&["checkpoint", "c"]);

    // While gdb is there the guest is held, which is no hindrance to a checkpoint.
    let mut gdb = program("gdb", attached(&socket, &["shell sleep 8", "detach"]));
    let mut gdb = Running::start(gdb.stdout(Stdio::null()).stderr(Stdio::null()));
    let held = lab.wait_for_state("c", "paused");
    assert_eq!(held["reason"], "stopped by the debugger");
    let taken = lab.ok(&["checkpoint", "c"])["generation"].as_u64().unwrap();
    assert_eq!(lab.machine("c")["state"], "paused");
    assert!(gdb.0.wait().unwrap().success());
    lab.wait_for_state("c", "running");
    lab.listen("c").next_number("tick ");
    lab.ok(&["checkpoint", "c"]);

    // Another keeper knows of the debugger, too.
    lab.replace_keeper("c");
    let mut gdb = program("gdb", attached(&socket, &["shell sleep 8", "detach"]));
    let gdb = Running::start(gdb.stdout(Stdio::null()).stderr(Stdio::null()));
    lab.wait_for_state("c", "paused");
    assert_eq!(machine(&lab.ok(&["resume", "c"]))["state"], "running");
    lab.listen("c").next_number("tick ");
    drop(gdb);

    // A restore is a run of its own, without a debugger.
    lab.ok(&["restore", &format!("c@{taken}")]);
    lab.listen("c").next_number("tick ");
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_clone_that_is_held_for_gdb_runs_without_it_when_told_to() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    debugged_clone(&lab, "c");
    let taken = lab.ok(&["checkpoint", "c"])["generation"].as_u64().unwrap();
    let console = lab.listen("c");
    assert_eq!(machine(&lab.ok(&["resume", "c"]))["state"], "running");
    console.next_number("tick ");
    lab.ok(&["restore", &format!("c@{taken}")]);
    lab.listen("c").next_number("tick ");
    assert_eq!(lab.ok(&["verify"])["damaged"].as_array().unwrap().len(), 0);
}
