//! A capture that fails, at whatever step: the guest goes on, the older snapshots are whole, nothing half-made is
//! visible, and the next checkpoint holds everything the failed one was to hold. And damage: found, named, refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::lab::small::Small;
use crate::lab::{Lab, kill, numbers, text};

const STAMPS: &str = "watari.run=stamp watari.args=mem=32M,mem-rate=10,disk-rate=2";

fn whole(lab: &Lab) {
    let report = lab.ok(&["verify"]);
    assert_eq!(report["damaged"], Value::Array(vec![]), "{report}");
}

/// A complete check of all stamps begins and ends without a wrong page.
fn stamps_are_right(lab: &Lab, name: &str) {
    let console = lab.listen(name);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");
}

#[test]
fn a_capture_that_finds_no_space_or_no_writable_store_loses_nothing() {
    let lab = Lab::without_daemon();
    let Some(store) = Small::mount(lab.home(), "store", "96M") else {
        eprintln!("mounting is not allowed here: nothing to test");
        return;
    };
    lab.ok(&["up"]);
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP ready");
    lab.ok(&["checkpoint", "m"]);
    let mut expected = vec![1];
    // From not even a pack's first frame to all but the last ref.
    for left in [0, 4 << 10, 128 << 10, 512 << 10, 1 << 20] {
        let ballast = store.leave(left);
        let console = lab.listen("m");
        // What still fits is taken; each is as small as the time since the last one.
        let failed = (0..60).find_map(|_| {
            let output = lab.watari(&["checkpoint", "m", "--json"]).output().unwrap();
            (!output.status.success()).then_some(output.stdout)
        });
        let failed: Value = serde_json::from_slice(&failed.expect("there is not that much space")).unwrap();
        assert_eq!(failed["error"]["kind"], "no_space", "{failed}");
        console.wait_until("to go on", |text| text.contains("STAMP pass"));
        let listed = lab.generations("m");
        assert!(listed.ends_with(&expected), "{listed:?} {expected:?}");
        whole(&lab);
        fs::remove_file(ballast).unwrap();
        let next = lab.ok(&["checkpoint", "m"])["generation"].as_u64().unwrap();
        expected = lab.generations("m");
        assert_eq!(expected[0], next);
    }
    a_restore_that_cannot_keep_what_is_left_does_not_happen(&lab, &store);
    let expected = lab.generations("m");
    store.remount("ro");
    let refused = lab.fails(&["checkpoint", "m"]);
    assert!(refused["message"].as_str().unwrap().contains("read-only"), "{refused}");
    assert_eq!(lab.generations("m"), expected);
    store.remount("rw");
    lab.ok(&["checkpoint", "m"]);
    whole(&lab);
    lab.ok(&["restore", "m"]);
    stamps_are_right(&lab, "m");
    lab.ok(&["kill", "m"]);
    lab.ok(&["down", "--machines"]);
}

fn a_restore_that_cannot_keep_what_is_left_does_not_happen(lab: &Lab, store: &Small) {
    let ballast = store.leave(0);
    let before = lab.generations("m");
    let refused = || {
        let error = lab.fails(&["restore", "m"]);
        assert_eq!(error["kind"], "no_space", "{error}");
        assert!(error["hint"].as_str().unwrap().contains("--discard"), "{error}");
        assert_eq!(lab.generations("m"), before);
    };
    let qemu = lab.pid("m", "qemu_pid");
    let console = lab.listen("m");
    refused();
    assert_eq!(lab.pid("m", "qemu_pid"), qemu, "the running machine was touched");
    console.wait_until("to go on", |text| text.contains("STAMP pass"));
    lab.ok(&["kill", "m"]);
    refused();
    let left = lab.machine("m");
    assert_eq!((&left["state"], &left["reason"]), (&"stopped".into(), &"killed".into()), "{left}");
    fs::remove_file(ballast).unwrap();
    lab.ok(&["restore", "m", "--discard"]);
    stamps_are_right(lab, "m");
}

#[test]
fn a_guest_whose_disk_finds_no_space_is_held_with_the_reason_and_goes_on_when_there_is_room() {
    let lab = Lab::without_daemon();
    let Some(machines) = Small::mount(lab.home(), "machines", "48M") else {
        eprintln!("mounting is not allowed here: nothing to test");
        return;
    };
    lab.ok(&["up"]);
    lab.ok(&["create", "m", "--demo", "--memory", "128M", "--disk", "64M", "--append", STAMPS]);
    let console = lab.listen("m");
    lab.ok(&["start", "m"]);
    let held = lab.wait_for_state("m", "paused");
    assert!(held["reason"].as_str().unwrap().contains("full"), "{held}");
    // What is left is too little for the guest. Now nothing is left.
    let _ = fs::write(machines.0.join("ballast"), vec![1; 8 << 20]);
    assert_eq!(lab.fails(&["resume", "m"])["kind"], "no_space");
    assert_eq!(lab.machine("m")["state"], "paused");
    machines.remount("size=256M");
    lab.ok(&["resume", "m"]);
    console.wait_until("all stamps twice", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!console.text().contains("STAMP ERROR"), "{}", console.text());
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["restore", "m"]);
    stamps_are_right(&lab, "m");
}

#[test]
fn a_capture_whose_qemu_is_killed_leaves_the_history_as_it_was() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP ready");
    lab.ok(&["checkpoint", "m"]);
    for delay_ms in [0, 5, 15, 40] {
        let before = lab.generations("m");
        std::thread::sleep(Duration::from_secs(1));
        let qemu = lab.pid("m", "qemu_pid");
        let mut capture = lab.watari(&["checkpoint", "m", "--json"]);
        let mut capture = capture.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        kill(qemu);
        let published = capture.wait().unwrap().success();
        lab.wait_for_state("m", "crashed");
        let after = lab.generations("m");
        assert_eq!(after.len(), before.len() + usize::from(published), "{before:?} {after:?}");
        whole(&lab);
        lab.ok(&["restore", "m"]);
        stamps_are_right(&lab, "m");
    }
}

/// The map says nothing, and the ledger is of another boot of the host. What was not synced is not lost by that: for
/// this there is the disk's own test, `power`.
#[test]
fn a_machine_whose_host_lost_its_power_starts_from_its_disk_and_its_next_checkpoint_is_complete() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP pass");
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["restore", "m"]);
    stamps_are_right(&lab, "m");
    kill(lab.pid("m", "qemu_pid"));
    lab.wait_for_state("m", "crashed");
    let disk = lab.folder("m").join("disk0");
    fs::write(disk.with_extension("map"), "nothing").unwrap();
    let refused = lab.fails(&["start", "m"]);
    assert_eq!(refused["kind"], "damaged", "in the same boot nothing can be lost: {refused}");
    let ledger = fs::OpenOptions::new().write(true).open(disk.with_extension("ledger")).unwrap();
    ledger.write_all_at(&[1; 16], 512).unwrap();

    let console = lab.listen("m");
    lab.ok(&["start", "m"]);
    let said = console.wait_for("STAMP pass");
    assert!(!said.contains("STAMP ERROR"), "{said}");
    let next = lab.ok(&["checkpoint", "m"]);
    assert!(next["disk_pages"].as_u64().unwrap() > 0, "{next}");
    for revision in ["m", "m@1", "m@2"] {
        lab.ok(&["restore", revision]);
        stamps_are_right(&lab, "m");
    }
}

#[test]
fn what_is_damaged_is_refused_and_named_and_the_machine_runs_on() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", "watari.run=counter", "tick 5");
    lab.ok(&["checkpoint", "m"]);
    let second = lab.ok(&["checkpoint", "m"])["id"].as_str().unwrap().to_owned();
    let store = lab.home().join("store");

    let manifest = find(&store.join("snapshots"), |name| name.starts_with(&second));
    let good = fs::read(&manifest).unwrap();
    for bad in [good[..good.len() / 2].to_vec(), flipped(&good, good.len() / 3)] {
        fs::write(&manifest, bad).unwrap();
        refused(&lab, "m@2");
    }
    fs::write(&manifest, &good).unwrap();

    let pack = find_largest(&store.join("packs"));
    let good = fs::read(&pack).unwrap();
    for bad in [good[..good.len() / 2].to_vec(), flipped(&good, good.len() / 3)] {
        fs::write(&pack, bad).unwrap();
        // A daemon that has read the pack's index before is as good as one that has not.
        refused(&lab, "m@1");
    }
    fs::write(&pack, &good).unwrap();
    whole(&lab);
    lab.ok(&["restore", "m@1"]);
}

/// What `verify` prints, damage or not.
fn verify(lab: &Lab, more: &[&str]) -> Value {
    let report = lab.watari(&[&["verify", "--json"], more].concat()).output().unwrap();
    serde_json::from_slice(&report.stdout).unwrap()
}

#[test]
fn what_is_damaged_comes_back_from_a_depot_and_runs() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP pass=1");
    for _ in 0..3 {
        lab.ok(&["checkpoint", "m"]);
    }
    let stick = tempfile::tempdir().unwrap();
    let at = |name: &str| stick.path().join(name).to_string_lossy().into_owned();
    fs::write(at("words"), "correct horse\n").unwrap();
    let open = ["--passphrase-file", &at("words")];
    lab.ok(&[&["push", "m@2", &at("depot.tar")], &open[..]].concat());

    // Of the newest snapshot only what the depot's has, too, can come back.
    let store = lab.home().join("store");
    let second = lab.ok(&["show", "m@2"])["id"].as_str().unwrap().to_owned();
    fs::remove_file(find(&store.join("snapshots"), |name| name.starts_with(&second))).unwrap();
    let pack = find_largest(&store.join("packs"));
    let good = fs::read(&pack).unwrap();
    fs::write(&pack, flipped(&good, good.len() / 3)).unwrap();
    let report = verify(&lab, &[]);
    let affected: Vec<_> =
        report["affected"].as_array().unwrap().iter().map(|one| &one["generation"]).collect();
    assert_eq!(affected, [1, 2, 3], "{report}");
    assert_eq!(report["affected"][1]["name"], "m");
    assert!(report.get("repaired").is_none());

    let repaired = verify(&lab, &[&["--repair", &at("depot.tar")], &open[..]].concat());
    assert_eq!(repaired["repaired"]["snapshots"], 1, "{repaired}");
    assert!(repaired["repaired"]["pages"].as_u64().unwrap() > 0, "{repaired}");
    assert_eq!((&repaired["damaged"], &repaired["affected"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    whole(&lab);
    for rev in ["m@3", "m@1", "m@2"] {
        lab.ok(&["restore", rev, "--discard"]);
        stamps_are_right(&lab, "m");
    }
    // What the pack held and nothing needs any more.
    lab.ok(&["gc"]);
    assert!(!pack.exists() && !store.join("condemned").join(pack.file_name().unwrap()).exists());
    whole(&lab);
}

#[test]
fn a_damaged_ref_is_named_and_takes_nothing_else_away() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", "watari.run=counter", "tick 2");
    for tag in ["first", "second", "third"] {
        lab.ok(&["checkpoint", "m", "--tag", tag]);
    }
    let id = lab.machine("m")["id"].as_str().unwrap().to_owned();
    let refs = lab.home().join("store/refs").join(id);
    let manifests = lab.home().join("store/snapshots");
    let first = lab.ok(&["show", "m@1"])["id"].as_str().unwrap().to_owned();
    let damaged = [
        (refs.join("snapshots/2"), vec![3, 1]),
        (refs.join("snapshots/3"), vec![2, 1]),
        (refs.join("tags/second"), vec![3, 2, 1]),
        (refs.join("head"), vec![3, 2, 1]),
        (find(&manifests, |name| name.starts_with(&first)), vec![3, 2]),
    ];
    for (path, left) in damaged {
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..10]).unwrap();
        let path = path.to_str().unwrap();
        let log = lab.ok(&["log", "m"]);
        assert_eq!(lab.generations("m"), left, "{path}");
        let named = log["damaged"].as_array().unwrap();
        assert!(named.iter().any(|what| what.as_str().unwrap().contains(path)), "{path} not in {log}");
        let said = lab.watari(&["log", "m"]).output().unwrap();
        assert!(said.status.success() && text(&said.stdout).contains(path));
        let report = lab.watari(&["verify", "m", "--json"]).output().unwrap();
        assert!(text(&report.stdout).contains(path), "{}", text(&report.stdout));
        assert_eq!(lab.ok(&["list"])["machines"][0]["name"], "m");
        lab.ok(&["show", &format!("m@{}", left[0])]);
        lab.ok(&["show", "m@third"]);
        fs::write(path, good).unwrap();
    }
    assert!(lab.ok(&["log", "m"]).get("damaged").is_none());
    // A ref that cannot be read is not written over: its number is taken.
    let newest = refs.join("snapshots/3");
    let good = fs::read(&newest).unwrap();
    fs::write(&newest, "").unwrap();
    assert_eq!(lab.ok(&["checkpoint", "m"])["generation"], 4);
    fs::write(&newest, good).unwrap();
    assert_eq!(lab.generations("m"), [4, 3, 2, 1]);
    whole(&lab);
}

/// A damaged snapshot: the restore says so, `verify` finds it, the machine has not noticed.
fn refused(lab: &Lab, rev: &str) {
    let qemu = lab.pid("m", "qemu_pid");
    let error = lab.fails(&["restore", rev]);
    assert_eq!(error["kind"], "damaged", "{error}");
    let report = verify(lab, &[]);
    assert!(!report["damaged"].as_array().unwrap().is_empty(), "{report}");
    let affected = report["affected"].as_array().unwrap();
    assert!(affected.iter().any(|one| rev.ends_with(&one["generation"].to_string())), "{report}");
    assert_eq!(lab.pid("m", "qemu_pid"), qemu, "the running machine was touched");
    lab.listen("m").next_number("tick ");
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    files(folder).into_iter().find(|path| wanted(path.file_name().unwrap().to_str().unwrap())).unwrap()
}

fn find_largest(folder: &Path) -> PathBuf {
    files(folder).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}
