//! A guest that goes on elsewhere before what it holds has come there.

use std::time::Duration;

use serde_json::Value;

use crate::lab::chance::Chance;
use crate::lab::victim::Victim;
use crate::lab::{Lab, check, joined, kill, node_id, numbers, wait, wait_within};

const STAMPS: &str = "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2";

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
}

/// Ends everything of a node, as if its computer had lost its power.
fn lose(lab: &Lab) {
    let machine = lab.machine("m");
    let daemon = lab.ok(&["up"])["pid"].as_u64().unwrap() as u32;
    kill(daemon);
    for which in ["keeper_pid", "qemu_pid"] {
        kill(machine["instance"][which].as_u64().unwrap() as u32);
    }
}

#[test]
fn a_guest_waits_for_the_node_that_it_left() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    let daemon = alpha.ok(&["up"])["pid"].as_u64().unwrap() as u32;
    alpha.ok(&["teleport", "m", "beta", "--lazy"]);
    kill(daemon);
    let waits = beta.machine("m");
    assert!(waits["reason"].as_str().unwrap().contains("no snapshot of it is here"), "{waits}");
    for command in [&["checkpoint", "m"][..], &["teleport", "m", "alpha"]] {
        let refused = beta.fails(command);
        assert_eq!(refused["kind"], "wrong_state", "{command:?}: {refused}");
    }
    wait("somebody to miss something", || {
        let now = beta.machine("m");
        now["reason"].as_str().unwrap().contains("cannot be read").then_some(())
    });
    let said_before = beta.serial("m").len();
    alpha.ok(&["up"]);
    check(beta, said_before);
    wait_for_the_rest(alpha, beta);
    check(beta, said_before);
    // The way back is like any other.
    beta.ok(&["teleport", "m", "alpha"]);
    check(alpha, alpha.serial("m").len());
}

#[test]
fn what_is_lost_with_the_node_that_a_guest_left_is_what_came_after_a_snapshot() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    alpha.ok(&["teleport", "m", "beta"]);
    beta.ok(&["teleport", "m", "alpha"]);
    let whole = beta.generations("m")[0];
    let alpha_at_work = alpha.machine("m");
    let daemon = alpha.ok(&["up"])["pid"].as_u64().unwrap() as u32;
    alpha.ok(&["teleport", "m", "beta", "--lazy"]);
    kill(daemon);
    for which in ["keeper_pid", "qemu_pid"] {
        kill(alpha_at_work["instance"][which].as_u64().unwrap() as u32);
    }
    let waits = beta.machine("m");
    let said = waits["reason"].as_str().unwrap();
    assert!(said.contains(&format!("is {whole}, ")) && said.contains(" s before it came"), "{said}");
    let said_before = beta.serial("m").len();
    let back = beta.ok(&["restore", "m", "--discard"]);
    assert_eq!(back["state"], "running", "{back}");
    check(beta, said_before);
    // There is nothing left of what was lent, and nobody waits for it.
    alpha.ok(&["up"]);
    alpha.wait_for_state("m", "suspended");
    beta.ok(&["checkpoint", "m"]);
    beta.ok(&["teleport", "m", "alpha"]);
    check(alpha, 0);
}

#[test]
fn a_guest_can_be_taken_back_from_a_node_that_is_lost_before_it_has_everything() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    let seen = *numbers(&alpha.serial("m"), "STAMP pass=").last().unwrap();
    let moved = alpha.ok(&["teleport", "m", "beta", "--lazy"]);
    lose(beta);
    let back = alpha.ok(&["resume", "m", "--here"]);
    assert!(back["epoch"].as_u64() > moved["epoch"].as_u64(), "{back}");
    let said_before = alpha.serial("m").len();
    check(alpha, said_before);
    assert!(*numbers(&alpha.serial("m"), "STAMP pass=").last().unwrap() > seen, "it does not start anew");
    // What is there of it is of no use, and says so.
    beta.ok(&["up"]);
    assert_eq!(beta.fails(&["start", "m"])["kind"], "wrong_state");
    wait("beta to hear of it", || (beta.machine("m")["node"] == node_id(alpha)).then_some(()));
    alpha.ok(&["teleport", "m", "beta"]);
    check(beta, 0);
}

#[test]
fn nothing_is_left_of_a_guest_that_could_not_come() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    std::thread::scope(|scope| {
        let moving =
            scope.spawn(|| alpha.watari(&["teleport", "m", "beta", "--lazy", "--json"]).output().unwrap());
        let qemu = wait("a QEMU to be there", || {
            let record = std::fs::read(beta.home().join("run/m/instance.json")).ok()?;
            serde_json::from_slice::<Value>(&record).ok()?["qemu_pid"].as_u64()
        });
        kill(qemu as u32);
        assert!(!moving.join().unwrap().status.success());
    });
    assert_eq!(alpha.machine("m")["state"], "running");
    check(alpha, alpha.serial("m").len());
    wait("nothing to be there", || {
        beta.ok(&["list"])["machines"].as_array().unwrap().is_empty().then_some(())
    });
    alpha.ok(&["teleport", "m", "beta", "--lazy"]);
    check(beta, 0);
    wait_for_the_rest(alpha, beta);
}

/// What became of a machine whose guest went first.
#[derive(Debug)]
enum Fate {
    /// It runs there, and is whole.
    Runs,
    /// It has to be restored there.
    Crashed,
    /// It runs, and what it needs is nowhere any more.
    Lost,
}

#[test]
fn whoever_dies_while_a_guest_goes_first_it_runs_once_or_can_be_had_back() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    alpha.ok(&["teleport", "m", "beta"]);
    beta.ok(&["teleport", "m", "alpha"]);
    // At another moment each time. `WATARI_KILLS` has it done at so many.
    let kills = std::env::var("WATARI_KILLS").map_or(1, |kills| kills.parse().unwrap());
    let mut chance = Chance::new();
    for victim in Victim::ALL.repeat(kills) {
        die_on_the_way(alpha, beta, victim, 30 + chance.below(800));
    }
}

fn die_on_the_way(alpha: &Lab, beta: &Lab, victim: Victim, after: u64) {
    let said = victim.dies_in(alpha, beta, &["teleport", "m", "beta", "--lazy", "--json"], after);
    let what = format!("{victim:?} after {after} ms: {said}");
    let (now, fate) = wait_within(Duration::from_secs(120), &what, || fate(alpha, beta, victim, &what));
    eprintln!("{what}{fate:?} {}", now.home().display());
    let said_before = now.serial("m").len();
    match fate {
        Fate::Runs => {}
        Fate::Lost => assert_eq!(victim, Victim::SourceQemu, "{what}"),
        Fate::Crashed => {
            let may_crash = [Victim::SourceQemu, Victim::DestinationQemu, Victim::DestinationKeeper];
            assert!(may_crash.contains(&victim), "{what}");
        }
    }
    if !matches!(fate, Fate::Runs) {
        now.ok(&["restore", "m", "--discard"]);
    }
    // A QEMU that was killed as the move ended may have been said to run.
    let checked = wait_within(Duration::from_secs(60), &what, || {
        let passes = numbers(&now.serial("m")[said_before..], "STAMP pass=").len();
        (passes >= 2 || now.machine("m")["state"] == "crashed").then_some(passes >= 2)
    });
    if !checked {
        now.ok(&["restore", "m", "--discard"]);
    }
    check(now, if checked { said_before } else { now.serial("m").len() });
    if std::ptr::eq(now, beta) {
        beta.ok(&["teleport", "m", "alpha"]);
        check(alpha, alpha.serial("m").len());
    }
}

/// Where it is and what became of it, once that is settled.
fn fate<'a>(alpha: &'a Lab, beta: &'a Lab, victim: Victim, what: &str) -> Option<(&'a Lab, Fate)> {
    let of = |lab: &Lab| {
        let list = lab.ok(&["list"]);
        let machine = list["machines"].as_array().unwrap().iter().find(|m| m["name"] == "m").cloned();
        let machine = machine.unwrap_or_default();
        let is_mine = machine["node"] == node_id(lab);
        (machine["state"].as_str().unwrap_or_default().to_owned(), is_mine, machine)
    };
    let ((left, is_alphas, _), (there, is_betas, machine)) = (of(alpha), of(beta));
    assert!(!(is_alphas && is_betas && left == "running" && there == "running"), "it runs on both, {what}");
    match (left.as_str(), there.as_str()) {
        ("running", _) if is_alphas => Some((alpha, Fate::Runs)),
        ("crashed", _) if is_alphas => Some((alpha, Fate::Crashed)),
        ("suspended", "crashed") if is_betas => Some((beta, Fate::Crashed)),
        ("suspended", "running") if is_betas => {
            let instance = &machine["instance"];
            let absent = instance["absent_ram_pages"].as_u64()? + instance["absent_disk_pages"].as_u64()?;
            let reason = machine["reason"].as_str().unwrap_or_default();
            let is_lost = victim == Victim::SourceQemu && reason.contains("cannot be read");
            match (reason, absent) {
                ("", 0) => Some((beta, Fate::Runs)),
                _ if is_lost => Some((beta, Fate::Lost)),
                _ => None,
            }
        }
        _ => None,
    }
}
