//! Garbage is collected while a guest is captured, rolled back and cloned, and nothing that is kept is ever wrong.

use std::ffi::OsStr;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::lab::programs::run;
use crate::lab::{Lab, numbers};

const STAMPS: &str = "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2";

fn set_policy(lab: &Lab, name: &str, policy: &str) {
    let path = lab.folder(name).join("machine.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("[config]", &format!("[retention]\n{policy}\n\n[config]"), 1)).unwrap();
}

/// Rolls back and waits until the guest has checked all its stamps.
fn check(lab: &Lab, name: &str, generation: u64) {
    let console = lab.listen(name);
    lab.ok(&["restore", &format!("{name}@{generation}"), "--discard"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{name}@{generation}: {said}");
}

#[test]
fn what_a_policy_keeps_stays_right_while_the_rest_is_removed_under_a_running_guest() {
    let lab = Lab::new();
    lab.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    set_policy(&lab, "m", "keep-last = 4");
    let is_over = AtomicBool::new(false);
    let collected: Vec<Value> = std::thread::scope(|scope| {
        let collect = || {
            let mut collected = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                collected.push(lab.ok(&["gc"]));
            }
            collected
        };
        // Of two at once, one waits.
        let collectors = [scope.spawn(collect), scope.spawn(collect)];
        for number in 1..=30_u64 {
            let tag = format!("t{number}");
            let mut command = vec!["checkpoint", "m"];
            command.extend(if number % 10 == 5 { vec!["--tag", &tag] } else { vec![] });
            assert_eq!(lab.ok(&command)["generation"], number);
        }
        is_over.store(true, Ordering::Relaxed);
        collectors.into_iter().flat_map(|collector| collector.join().unwrap()).collect()
    });
    let sum = |field: &str| collected.iter().map(|gc| gc[field].as_u64().unwrap()).sum::<u64>();
    assert!(sum("packs_removed") > 10 && sum("packs_written") > 0, "{collected:?}");
    lab.ok(&["gc"]);
    assert_eq!(lab.generations("m"), [30, 29, 28, 27, 25, 15, 5]);
    let verified = lab.ok(&["verify"]);
    assert_eq!(verified["damaged"], Value::Array(vec![]), "{verified}");
    assert_eq!(verified["snapshots_checked"], 7);
    for generation in [5, 30, 27, 15] {
        check(&lab, "m", generation);
    }
    // Without any of Watari's code every bit of one is found right, too.
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/watari-read");
    run("python3", [OsStr::new(reader), lab.home().join("store").as_os_str(), OsStr::new("m@27")]);
}

#[test]
fn a_snapshot_that_was_removed_is_gone_and_its_clone_is_not() {
    let lab = Lab::new();
    lab.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    for _ in 0..3 {
        lab.ok(&["checkpoint", "m"]);
    }
    assert_eq!(lab.fails(&["rm", "m@3"])["kind"], "bad_revision", "the machine descends from it");
    lab.ok(&["tag", "m@2", "good"]);
    assert_eq!(lab.fails(&["rm", "m@2"])["kind"], "bad_revision", "it has a tag");
    lab.ok(&["clone", "m@1", "c", "--start"]);
    assert_eq!(lab.ok(&["rm", "m@1"])["generation"], 1);
    assert_eq!(lab.generations("m"), [3, 2]);
    let would = lab.ok(&["gc", "--dry-run"]);
    assert_eq!(
        (&would["snapshots_removed"], &would["dry_run"]),
        (&Value::from(0), &Value::from(true)),
        "the clone has it"
    );
    lab.ok(&["gc"]);
    check(&lab, "c", 1);
    lab.ok(&["kill", "m"]);
    lab.ok(&["rm", "m"]);
    let freed = lab.ok(&["gc"])["freed_bytes"].as_u64().unwrap();
    assert!(freed > 0);
    check(&lab, "c", 1);
    lab.ok(&["checkpoint", "c"]);
    lab.ok(&["kill", "c"]);
    lab.ok(&["rm", "c"]);
    lab.ok(&["gc"]);
    let store = lab.home().join("store");
    for folder in ["packs", "snapshots", "condemned", "leases", "tmp"] {
        assert_eq!(fs::read_dir(store.join(folder)).unwrap().count(), 0, "{folder}");
    }
}
