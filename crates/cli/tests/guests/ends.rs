//! `down --machines` ends everything, whatever state machines, keepers and QEMUs are in.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, kill, text};

const COUNTER: &str = "watari.run=counter";

fn create(lab: &Lab, name: &str) {
    lab.ok(&["create", name, "--demo", "--memory", "128M", "--disk", "8M", "--append", COUNTER]);
}

/// The processes of a machine.
fn processes(lab: &Lab, name: &str) -> [u32; 2] {
    ["qemu_pid", "keeper_pid"].map(|which| lab.pid(name, which))
}

fn stop_process(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).unwrap();
}

/// Everything is to be gone when the command returns.
fn goes_down(lab: &Lab, processes: &[u32], when: &str) {
    let output = lab.watari(&["down", "--machines", "--json"]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{when}: {said}\n{}", lab.logs());
    for pid in processes {
        assert_eq!(
            watari_keeper::process_started(*pid),
            None,
            "{when}: process {pid} is left\n{}",
            lab.logs()
        );
    }
    assert_eq!(lab.fails(&["list"])["kind"], "no_daemon", "{when}");
}

#[test]
fn a_machine_that_is_just_dying_does_not_keep_the_daemon_up() {
    let lab = Lab::without_daemon();
    let machines = ["a", "b", "c"];
    for (round, delay_ms) in [0, 0, 1, 5, 10, 20, 50, 200].into_iter().enumerate() {
        let node = lab.ok(&["up"])["pid"].as_u64().unwrap() as u32;
        for name in machines {
            if round == 0 {
                create(&lab, name);
            }
            lab.ok(&["start", name]);
        }
        let there = machines.map(|name| processes(&lab, name));
        let [[qemu_a, _], [qemu_b, keeper_b], [qemu_c, keeper_c]] = there;
        kill(qemu_a);
        kill(qemu_b);
        kill(keeper_b);
        kill(keeper_c);
        kill(qemu_c);
        std::thread::sleep(Duration::from_millis(delay_ms));
        let all: Vec<u32> = there.concat().into_iter().chain([node]).collect();
        goes_down(&lab, &all, &format!("after {delay_ms} ms"));
    }
}

#[test]
fn stuck_and_damaged_machines_end_with_the_others() {
    let lab = Lab::new();
    let node = lab.ok(&["up"])["pid"].as_u64().unwrap() as u32;
    let machines = ["good", "paused", "stuck-qemu", "stuck-keeper", "busy", "illegible", "gone", "lost"];
    for name in machines {
        create(&lab, name);
        lab.ok(&["start", name]);
        if name == "good" {
            lab.listen_from_start(name).wait_for("tick 2");
        }
    }
    lab.ok(&["pause", "paused"]);
    let there: Vec<u32> = machines.iter().flat_map(|name| processes(&lab, name)).chain([node]).collect();
    let pid = |name: &str, which| lab.pid(name, which);
    let [stuck, silent, busy, lost] = [
        pid("stuck-qemu", "qemu_pid"),
        pid("stuck-keeper", "keeper_pid"),
        pid("busy", "keeper_pid"),
        pid("lost", "keeper_pid"),
    ];
    [stuck, silent, busy].into_iter().for_each(stop_process);
    // An operation that will never end.
    let mut checkpoint = lab.watari(&["checkpoint", "busy", "--json"]);
    let mut checkpoint = checkpoint.stdout(std::process::Stdio::null()).spawn().unwrap();
    fs::write(lab.folder("illegible").join("state.json"), "{").unwrap();
    fs::remove_dir_all(lab.folder("gone")).unwrap();
    kill(lost);
    goes_down(&lab, &there, "everything at once");
    checkpoint.wait().unwrap();
    lab.ok(&["up"]);
    assert_eq!(lab.machine("good")["state"], "stopped");
    assert!(lab.machine("good")["reason"].as_str().unwrap().contains("powered off"));
}

#[test]
fn a_keeper_that_was_stuck_before_the_daemon_came_ends_too() {
    let lab = Lab::new();
    create(&lab, "m");
    lab.ok(&["start", "m"]);
    let there = processes(&lab, "m");
    stop_process(there[1]);
    kill(lab.ok(&["up"])["pid"].as_u64().unwrap() as u32);
    lab.ok(&["up"]);
    lab.wait_for_state("m", "crashed");
    goes_down(&lab, &there, "never followed");
}
