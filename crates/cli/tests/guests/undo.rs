//! What a restore leaves behind is kept, whatever the machine was doing, and restoring that undoes it.

use std::fs;

use serde_json::Value;

use crate::lab::programs::{ServedDisk, run};
use crate::lab::{Lab, kill, numbers, text};

const COUNTER: &str = "watari.run=counter";
const STAMPS: &str = "watari.run=stamp watari.args=mem=32M,mem-rate=10,disk-rate=2";

/// A restore that must keep something; the number of what it kept.
fn kept(lab: &Lab, rev: &str) -> u64 {
    let restored = lab.ok(&["restore", rev]);
    let generation =
        restored["kept"]["generation"].as_u64().unwrap_or_else(|| panic!("nothing in {restored}"));
    let shown = lab.ok(&["show", &format!("m@{generation}")]);
    assert_eq!(shown["id"], restored["kept"]["id"], "{restored}");
    assert_eq!(shown["message"], format!("before restoring m@{}", restored["generation"]), "{shown}");
    generation
}

/// What the guest counted up to before it went back, and what it counts from then on.
fn around_the_restore(console: &str) -> (u64, u64) {
    let ticks = numbers(console, "tick ");
    let back = ticks.windows(2).find(|pair| pair[1] != pair[0] + 1).unwrap_or_else(|| panic!("{ticks:?}"));
    (back[0], back[1])
}

#[test]
fn a_restore_is_undone_by_restoring_what_it_kept_and_the_guest_misses_nothing() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    lab.listen("m").wait_until("to count on", |text| numbers(text, "tick ").len() > 20);

    for how in ["running", "paused"] {
        let console = lab.listen("m");
        console.wait_until("a few numbers", |text| numbers(text, "tick ").len() > 1);
        if how == "paused" {
            lab.ok(&["pause", "m"]);
        }
        let generation = kept(&lab, "m@1");
        let is_back = |text: &str| numbers(text, "tick ").windows(2).any(|pair| pair[1] < pair[0]);
        let (last, first) = around_the_restore(&console.wait_until("to be back", is_back));
        assert!(first < last, "{how}: {first} after {last}");
        lab.ok(&["pause", "m"]);
        let console = lab.listen("m");
        lab.ok(&["restore", &format!("m@{generation}"), "--discard"]);
        let said = console.wait_until("another number", |text| !numbers(text, "tick ").is_empty());
        let next = numbers(&said, "tick ")[0];
        // Of the number that it was just printing the line may be in two parts.
        assert!((last + 1..=last + 2).contains(&next), "{how}: left at {last}, goes on at {next}");
    }
    assert_eq!(lab.generations("m"), [3, 2, 1]);
    // What is kept is a snapshot like any other, and the way back is told.
    let said = lab.watari(&["restore", "m"]).output().unwrap();
    assert!(text(&said.stdout).contains("; `watari restore m@4` goes back to what it left"), "{said:?}");
    lab.ok(&["rm", "m@4"]);
    assert_eq!(lab.ok(&["verify"])["damaged"], Value::Array(vec![]));
}

#[test]
fn of_a_machine_that_does_not_run_the_disks_are_kept_where_they_have_changed() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP pass=1");
    lab.ok(&["checkpoint", "m"]);
    lab.listen("m").wait_for("STAMP pass");
    for end in ["kill", "crash"] {
        let console = lab.listen("m");
        if end == "kill" {
            lab.ok(&["kill", "m"]);
        } else {
            kill(lab.pid("m", "qemu_pid"));
            lab.wait_for_state("m", "crashed");
        }
        let left = fs::read(lab.folder("m").join("disk0.raw")).unwrap();
        let generation = kept(&lab, "m@1");
        console.wait_for("STAMP pass");
        assert!(!console.text().contains("STAMP ready"), "m@1 went on where it was");
        let disk = ServedDisk::of(&lab, &format!("m@{generation}"));
        let copy = lab.home().join("copy.raw");
        run("qemu-img", ["convert", "-O", "raw", &disk.uri, copy.to_str().unwrap()]);
        assert!(fs::read(copy).unwrap() == left, "{end}: the disk is not what the machine left");

        // It is powered on with these disks, as if it were started.
        let console = lab.listen("m");
        lab.ok(&["restore", &format!("m@{generation}"), "--discard"]);
        console.wait_for("STAMP ready");
        let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
        assert!(!said.contains("STAMP ERROR"), "{said}");
    }
    let before = lab.generations("m");
    lab.ok(&["kill", "m"]);
    assert!(lab.ok(&["restore", "m@1", "--discard"])["kept"].is_null());
    assert_eq!(lab.generations("m"), before);
}

#[test]
fn where_nothing_is_left_behind_nothing_is_kept() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["pause", "m"]);
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["kill", "m"]);
    assert!(lab.ok(&["restore", "m"])["kept"].is_null(), "its disk is as it was");
    assert!(lab.ok(&["restore", "m", "--discard"])["kept"].is_null());
    lab.ok(&["clone", "m", "c"]);
    assert!(lab.ok(&["restore", "c"])["kept"].is_null(), "it never ran");
    assert_eq!((lab.generations("m"), lab.generations("c")), (vec![1], vec![1]));
    // A machine whose restore was cut short has no disks, and must be restored to have some.
    lab.ok(&["kill", "m"]);
    fs::remove_file(lab.folder("m").join("disk0.ledger")).unwrap();
    assert!(lab.ok(&["restore", "m"])["kept"].is_null());
    lab.listen("m").next_number("tick ");
    // One whose disk is damaged may have something to lose.
    lab.ok(&["kill", "m"]);
    fs::write(lab.folder("m").join("disk0.ledger"), "nothing").unwrap();
    let refused = lab.fails(&["restore", "m"]);
    assert_eq!(refused["kind"], "damaged");
    assert!(refused["hint"].as_str().unwrap().contains("--discard"), "{refused}");
    lab.ok(&["restore", "m", "--discard"]);
    lab.listen("m").next_number("tick ");
}
