//! A machine that does not run is restored before its memory is there. What the guest finds in it is right nevertheless:
//! to the last stamp, while it arrives and after; captured in the middle of it, and with another keeper from then on.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Console, Lab, kill, numbers, wait};

const STAMPS: &str = "watari.run=stamp watari.args=mem=280M,mem-rate=5,disk-rate=1";
/// So many keepers are to die while memory arrives,
const CUTS: usize = 5;
/// out of so many.
const ROUNDS: usize = 20;

fn stamping() -> Option<Lab> {
    let lab = Lab::new();
    let doctor = lab.ok(&["doctor"]);
    let checks = doctor["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "userfaultfd").unwrap();
    if check["status"] != "ok" {
        eprintln!("SKIPPED: memory is filled before a guest runs here: {check}");
        return None;
    }
    lab.start_demo("m", "384M", "8M", STAMPS, "STAMP pass=1");
    lab.ok(&["checkpoint", "m"]);
    Some(lab)
}

fn absent(lab: &Lab) -> u64 {
    lab.machine("m")["instance"]["absent_ram_pages"].as_u64().unwrap()
}

fn is_right(console: &Console<'_>) {
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("STAMP ERROR")).collect();
    assert!(wrong.is_empty(), "{} wrong pages, first: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn what_is_captured_while_memory_arrives_is_right() {
    let Some(lab) = stamping() else { return };
    let mut while_arriving = 0;
    for round in 0..4 {
        lab.ok(&["kill", "m"]);
        let console = lab.listen("m");
        lab.ok(&["restore", "m", "--discard"]);
        while_arriving += usize::from(absent(&lab) > 0);
        // One right away, and one that has to find what was written since.
        lab.ok(&["checkpoint", "m"]);
        let second = lab.ok(&["checkpoint", "m"]);
        assert!(second["ram_pages"].as_u64().unwrap() < 20_000, "not all of it counts as written: {second}");
        if round % 2 == 0 {
            is_right(&console);
        }
    }
    eprintln!("memory was still arriving in {while_arriving} of 4 rounds");
    wait("all of memory", || (absent(&lab) == 0).then_some(()));
    let console = lab.listen("m");
    lab.ok(&["restore", "m"]);
    is_right(&console);
    assert_eq!(lab.ok(&["verify", "m"])["damaged"].as_array().unwrap().len(), 0);
}

#[test]
fn a_machine_whose_keeper_dies_while_its_memory_arrives_gets_the_rest_from_the_next_one() {
    let Some(lab) = stamping() else { return };
    let mut cuts = 0;
    for _ in 0..ROUNDS {
        if lab.machine("m")["state"] == "running" {
            lab.ok(&["kill", "m"]);
        }
        let console = lab.listen("m");
        let mut restore =
            lab.watari(&["restore", "m", "--discard", "--json"]).stdout(Stdio::null()).spawn().unwrap();
        let keeper = wait("the guest to run", || keeper_of_running(&lab));
        let arrived = lab.home().join("run/m/arrived");
        kill(keeper);
        let was_arriving = arrived.exists();
        if !restore.wait().unwrap().success() && lab.machine("m")["state"] == "stopped" {
            // It had not said that the guest runs, and then it does not.
            wait("QEMU to be gone", || keeper_of_running(&lab).is_none().then_some(()));
            continue;
        }
        lab.wait_for_another_keeper("m", keeper);
        cuts += usize::from(was_arriving);
        wait("all of memory", || (absent(&lab) == 0 && !arrived.exists()).then_some(()));
        is_right(&console);
        lab.ok(&["checkpoint", "m"]);
        if cuts == CUTS {
            return;
        }
    }
    assert!(cuts > 0, "memory arrives too soon for this test to see it: it needs more of it");
}

#[test]
fn a_restore_of_a_machine_whose_memory_arrives_leaves_nothing_of_it() {
    let Some(lab) = stamping() else { return };
    for _ in 0..3 {
        lab.ok(&["kill", "m"]);
        lab.ok(&["restore", "m@1", "--discard"]);
        let console = lab.listen("m");
        lab.ok(&["restore", "m@1", "--discard"]);
        is_right(&console);
    }
    // Nobody waits for memory that is new.
    lab.ok(&["kill", "m"]);
    lab.ok(&["restore", "m@1", "--discard"]);
    let arrived = lab.home().join("run/m/arrived");
    wait("all of memory", || (!arrived.exists()).then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    is_right(&lab.listen("m"));
}

#[test]
fn a_guest_whose_memory_cannot_be_read_any_more_waits_and_goes_on_when_it_can() {
    let Some(lab) = stamping() else { return };
    // Of several packs, so that one that is open already is not all there is.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        lab.ok(&["checkpoint", "m"]);
    }
    let (packs, away) = (lab.home().join("store/packs"), lab.home().join("store/away"));
    for _ in 0..ROUNDS {
        lab.ok(&["kill", "m"]);
        let console = lab.listen("m");
        lab.ok(&["restore", "m", "--discard"]);
        std::fs::rename(&packs, &away).unwrap();
        let said = wait("a reason, or all of memory", || {
            let machine = lab.machine("m");
            let absent = machine["instance"]["absent_ram_pages"].as_u64().unwrap();
            let reason = machine["reason"].as_str().unwrap().to_owned();
            (absent == 0 || !reason.is_empty()).then_some((absent, reason))
        });
        std::fs::rename(&away, &packs).unwrap();
        wait("all of memory", || (absent(&lab) == 0).then_some(()));
        assert_eq!(lab.machine("m")["reason"], "", "it is over");
        is_right(&console);
        if said.0 > 0 {
            assert!(said.1.contains("a part of its memory cannot be read"), "{said:?}");
            return;
        }
    }
    panic!("memory arrives too soon for this test to see it: it needs more of it");
}

/// The keeper of a machine that has come to life; its daemon may not know it yet.
fn keeper_of_running(lab: &Lab) -> Option<u32> {
    let record = std::fs::read(lab.home().join("run/m/instance.json")).ok()?;
    let record: Value =
        serde_json::from_slice(&record).ok().filter(|record: &Value| record["ready"] == true)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", record["qemu_pid"])).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}
