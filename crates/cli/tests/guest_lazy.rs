//! A guest that goes on elsewhere before what it holds has come there.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on must say so and fail")]

mod lab;

use lab::{Lab, joined, kill, numbers, wait};
use serde_json::Value;

const STAMPS: &str = "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2";

fn node_id(lab: &Lab) -> Value {
    lab.ok(&["up"])["node_id"].clone()
}

/// Waits until the guest has checked all its stamps twice where it is now.
fn check(lab: &Lab, from: usize) {
    let said = wait("two passes", || {
        let said = lab.serial("m").split_off(from);
        (numbers(&said, "STAMP pass=").len() >= 2).then_some(said)
    });
    assert!(!said.contains("STAMP ERROR"), "{said}");
}

/// Waits until nothing of the machine is anywhere but on `there`.
fn wait_for_the_rest(here: &Lab, there: &Lab) {
    here.wait_for_state("m", "suspended");
    wait("all of it to be there", || {
        let now = there.machine("m");
        let instance = &now["instance"];
        let absent = instance["absent_ram_pages"].as_u64()? + instance["absent_disk_pages"].as_u64()?;
        (absent == 0 && now["reason"] == "").then_some(())
    });
}

#[test]
fn a_guest_goes_first_and_what_it_holds_follows() {
    let labs = joined(&["alpha", "beta"]);
    labs[0].start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let (here, there) = (&labs[from], &labs[to]);
        let said_before = there.serial("m").len();
        let moved = here.ok(&["teleport", "m", ["alpha", "beta"][to], "--lazy"]);
        eprintln!("{moved}");
        let now = there.machine("m");
        assert_eq!((&now["state"], &now["node"]), (&"running".into(), &node_id(there)));
        check(there, said_before);
        wait_for_the_rest(here, there);
        there.ok(&["checkpoint", "m"]);
    }
    for lab in &labs {
        assert_eq!(lab.ok(&["verify"])["damaged"], Value::Array(vec![]));
    }
    let _ = kill;
}
