//! A guest that stamps and checks its own memory and disk moves between nodes while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::lab::small::Small;
use crate::lab::victim::Victim;
use crate::lab::{Lab, check, joined, node_id, numbers, wait};

/// It writes to some 8,000 pages again and again: no more goes to and fro, however long a busy machine takes.
const FEW_STAMPS: &str = "watari.run=stamp watari.args=mem=16M,mem-rate=10,disk-rate=2";
const STAMPS: &str = "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2";

#[test]
fn a_guest_goes_there_and_back_while_it_runs_and_notices_nothing() {
    let labs = joined(&["alpha", "beta"]);
    let ids = [node_id(&labs[0]), node_id(&labs[1])];
    labs[0].start_demo("m", "160M", "16M", FEW_STAMPS, "STAMP pass=1");
    let mut sent = Vec::new();
    for (turn, (from, to)) in [(0, 1), (1, 0), (0, 1), (1, 0)].into_iter().enumerate() {
        let (here, there) = (&labs[from], &labs[to]);
        let said_before = there.serial("m").len();
        let moved = here.ok(&["teleport", "m", ["alpha", "beta"][to]]);
        assert_eq!((&moved["node"], &moved["name"]), (&ids[to], &"m".into()), "{moved}");
        assert!(moved["downtime_ms"].as_f64().unwrap() < moved["total_ms"].as_f64().unwrap(), "{moved}");
        sent.push(moved["pages_sent"].as_u64().unwrap());
        let now = there.machine("m");
        assert_eq!(
            (&now["state"], &now["epoch"], &now["node"]),
            (&"running".into(), &moved["epoch"], &ids[to])
        );
        assert_eq!(now["epoch"], turn + 2);
        let left = here.machine("m");
        assert_eq!((&left["state"], &left["node"]), (&"suspended".into(), &ids[to]));
        for command in [&["start", "m"][..], &["restore", "m", "--discard"], &["resume", "m"]] {
            let refused = here.fails(command);
            assert_eq!(refused["kind"], "wrong_state", "{command:?}: {refused}");
            assert!(refused["hint"].as_str().unwrap().contains("--here"), "{refused}");
        }
        check(there, said_before);
    }
    assert!(sent[0] > 10_000 && sent[1..].iter().all(|pages| *pages < sent[0] / 2), "{sent:?}");
    for lab in &labs {
        assert_eq!(lab.ok(&["verify"])["damaged"], Value::Array(vec![]));
    }
}

#[test]
fn what_a_person_takes_back_is_held_where_it_ran() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    let moved = alpha.ok(&["teleport", "m", "beta"]);
    let back = alpha.ok(&["resume", "m", "--here"]);
    assert!(back["epoch"].as_u64() > moved["epoch"].as_u64(), "{back}");
    let said_before = alpha.serial("m").len();
    alpha.ok(&["start", "m"]);
    check(alpha, said_before);
    beta.wait_for_state("m", "paused");
    assert_eq!(beta.fails(&["resume", "m"])["kind"], "wrong_state");
    assert_eq!(beta.machine("m")["node"], node_id(alpha));
    // Where it was taken away it may come again.
    alpha.ok(&["kill", "m"]);
    alpha.ok(&["rm", "m"]);
    beta.ok(&["resume", "m", "--here"]);
    beta.ok(&["teleport", "m", "alpha"]);
    check(alpha, 0);
}

#[test]
fn whatever_is_in_the_way_the_guest_goes_on_where_it_is() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    assert_eq!(alpha.fails(&["teleport", "m", "nobody"])["kind"], "unknown_node");
    assert_eq!(alpha.fails(&["teleport", "m", "alpha"])["kind"], "bad_request");
    // Another machine has its name.
    beta.ok(&["create", "m", "--demo", "--memory", "64M"]);
    assert_eq!(alpha.fails(&["teleport", "m", "beta"])["kind"], "name_taken");
    beta.ok(&["rm", "m"]);
    // Its QEMU is older: nothing is brought there.
    let version = "[ \"$1\" = --version ] && echo 'QEMU emulator version 8.2.0' && exit";
    with_qemu(beta, version, || {
        wait("beta to be there again", || {
            let refused = alpha.fails(&["teleport", "m", "beta"]);
            (refused["kind"] == "qemu_too_old").then_some(())
        });
    });
    assert!(beta.ok(&["list"])["machines"].as_array().unwrap().is_empty());
    // There is less memory than the guest has.
    with_memory(beta, "131072", || {
        wait("beta to be there again", || {
            let refused = alpha.fails(&["teleport", "m", "beta"]);
            (refused["kind"] == "not_enough_memory").then_some(())
        });
    });
    assert!(beta.ok(&["list"])["machines"].as_array().unwrap().is_empty());
    // It cannot give the guest the CPU that it has: which is known before the guest is held.
    let cpu =
        "for a; do shift; case $a in qemu64,*) a=$a,+avx512f,enforce;; esac; set -- \"$@\" \"$a\"; done";
    with_qemu(beta, cpu, || {
        for more in [&[][..], &["--lazy"]] {
            let refused = wait("beta to be there again", || {
                let refused = alpha.fails(&[&["teleport", "m", "beta"], more].concat());
                (refused["kind"] != "unreachable").then_some(refused)
            });
            assert_eq!(refused["kind"], "qemu", "{refused}");
            check(alpha, alpha.serial("m").len());
        }
    });
    // What was brought is not for beta to run, which has been down meanwhile.
    assert_eq!(beta.machine("m")["node"], node_id(alpha));
    assert_eq!(beta.fails(&["start", "m"])["kind"], "wrong_state");
    alpha.ok(&["teleport", "m", "beta"]);
    check(beta, 0);
}

/// Does something while a node has another QEMU: the real one, after this line of a shell's.
fn with_qemu(lab: &Lab, line: &str, work: impl FnOnce()) {
    let programs = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    let fake = programs.path().join("qemu-system-x86_64");
    let real = format!("export PATH='{path}'; {line}; exec qemu-system-x86_64 \"$@\"");
    fs::write(&fake, format!("#!/bin/sh\n{real}\n")).unwrap();
    fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
    lab.ok(&["down"]);
    let first = format!("{}:{path}", programs.path().display());
    assert!(lab.watari(&["up"]).env("PATH", first).output().unwrap().status.success());
    work();
    lab.ok(&["down"]);
    lab.ok(&["up"]);
}

/// Does something while there are so many KiB of memory free where a node is.
fn with_memory(lab: &Lab, kib: &str, work: impl FnOnce()) {
    let info = lab.home().join("meminfo");
    fs::write(&info, format!("MemTotal: 1048576 kB\nMemAvailable: {kib} kB\n")).unwrap();
    lab.ok(&["down"]);
    let up = lab.watari(&["up"]);
    let mut there = Command::new("unshare");
    there.args(["--mount", "sh", "-c", "mount --bind \"$0\" /proc/meminfo && exec \"$@\""]).arg(&info);
    there.arg(up.get_program()).args(up.get_args());
    there.envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(there.output().unwrap().status.success());
    work();
    lab.ok(&["down"]);
    lab.ok(&["up"]);
}

#[test]
fn a_guest_for_which_there_is_no_room_goes_on_where_it_is_until_there_is() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    beta.ok(&["down"]);
    let Some(store) = Small::mount(beta.home(), "store", "512M") else { return };
    let ballast = store.leave(8 << 20);
    beta.ok(&["up"]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    alpha.wait_for_node("beta");
    let refused = alpha.fails(&["teleport", "m", "beta"]);
    assert_eq!(refused["kind"], "no_space", "{refused}");
    check(alpha, alpha.serial("m").len());
    fs::remove_file(ballast).unwrap();
    alpha.ok(&["teleport", "m", "beta"]);
    check(beta, 0);
    assert_eq!(beta.ok(&["verify"])["damaged"], serde_json::json!([]));
    // Before its store is.
    beta.ok(&["down", "--machines"]);
}

/// When, in milliseconds after the command: at all of its steps, the last of which come quickly one after the other.
/// `WATARI_KILLS` has it done at so many more moments.
fn moments() -> Vec<u64> {
    let more: u64 = std::env::var("WATARI_KILLS").map_or(0, |kills| kills.parse().unwrap());
    [300, 800].into_iter().chain((0..more).map(|k| 50 + k * 1200 / more)).collect()
}

#[test]
fn whoever_dies_on_the_way_it_runs_on_one_of_them_and_only_there() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    // The first move takes longer than all others.
    alpha.ok(&["teleport", "m", "beta"]);
    beta.ok(&["teleport", "m", "alpha"]);
    for victim in Victim::ALL {
        for after in moments() {
            die_on_the_way(alpha, beta, victim, after);
        }
    }
}

fn die_on_the_way(alpha: &Lab, beta: &Lab, victim: Victim, after: u64) {
    let said = victim.dies_in(alpha, beta, &["teleport", "m", "beta", "--json"], after);
    let what = format!("{victim:?} after {after} ms: {said}");
    let is = |lab: &Lab, state: &str| {
        let list = lab.ok(&["list"]);
        let machines = list["machines"].as_array().unwrap().clone();
        let id = node_id(lab);
        machines
            .iter()
            .any(|machine| machine["name"] == "m" && machine["state"] == state && machine["node"] == id)
    };
    let (now, other) = wait(&format!("it to be somewhere, {what}"), || {
        assert!(!(is(alpha, "running") && is(beta, "running")), "it runs on both, {what}");
        let mut both = [(alpha, beta), (beta, alpha)].into_iter();
        both.find(|(lab, _)| is(lab, "running") || is(lab, "crashed"))
    });
    // Its QEMU may be killed as the command ends: it still runs for whoever asks then, and does not a moment later.
    let said_before = now.serial("m").len();
    let goes_on = wait(&format!("it to go on or to have ended, {what}"), || {
        let is_checked = numbers(&now.serial("m")[said_before..], "STAMP pass=").len() >= 2;
        (is_checked || is(now, "crashed")).then_some(is_checked)
    });
    if !goes_on {
        assert!(matches!(victim, Victim::SourceQemu | Victim::DestinationQemu), "{what}");
        now.ok(&["restore", "m", "--discard"]);
    }
    check(now, if goes_on { said_before } else { now.serial("m").len() });
    assert!(!is(other, "running"), "{what}");
    if std::ptr::eq(now, beta) {
        beta.ok(&["teleport", "m", "alpha"]);
        check(alpha, alpha.serial("m").len());
    }
}
