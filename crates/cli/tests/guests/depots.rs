//! A machine goes from one node to another through depots: a folder, one file, and one that is encrypted.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::lab::programs::run;
use crate::lab::{Lab, numbers};

const STAMPS: &str = "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/watari-read");

/// Rolls back and waits until the guest has checked all its stamps.
fn check(lab: &Lab, name: &str, generation: u64) {
    let console = lab.listen(name);
    lab.ok(&["restore", &format!("{name}@{generation}"), "--discard"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{name}@{generation}: {said}");
}

fn node_id(lab: &Lab) -> String {
    lab.ok(&["up"])["node_id"].as_str().unwrap().to_owned()
}

/// Checks an export with a reader that has none of Watari's code. It hashes in Python, which takes its time: once for each kind of
/// export, and otherwise that everything is there and can be decompressed is enough.
fn read(path: &Path, revision: &str, more: &[&str]) {
    let what = [OsStr::new(READER), path.as_os_str(), OsStr::new(revision)];
    run("python3", what.into_iter().chain(more.iter().map(OsStr::new)));
}

#[test]
fn a_machine_walks_to_another_node_on_a_stick_and_back() {
    let (here, there) = (Lab::new(), Lab::new());
    let stick = tempfile::tempdir().unwrap();
    let at = |name: &str| stick.path().join(name).to_string_lossy().into_owned();
    here.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    here.ok(&["checkpoint", "m", "--tag", "gold"]);
    let first = here.ok(&["export", "m@1", &at("stick")]);
    assert!(first["pages_written"].as_u64().unwrap() > 10_000, "{first}");
    here.ok(&["checkpoint", "m"]);
    here.ok(&["checkpoint", "m"]);
    let third = here.ok(&["export", "m", &at("stick")]);
    assert!(third["bytes_written"].as_u64() < first["bytes_written"].as_u64(), "{third}");
    assert_eq!(here.ok(&["export", "m", &at("stick")])["bytes_written"], 0);
    read(Path::new(&at("stick")), "m@1", &["--trust"]);
    read(Path::new(&at("stick")), "m@3", &[]);

    let came = there.ok(&["import", &at("stick")]);
    assert_eq!((&came["name"], &came["is_new"], &came["generation"]), (&"m".into(), &true.into(), &3.into()));
    assert_eq!(came["untrusted"], serde_json::json!([node_id(&here)]));
    assert_eq!(there.generations("m"), [3, 1]);
    for command in [&["start", "m"][..], &["restore", "m@gold"], &["clone", "m@1", "c"]] {
        let refused = there.fails(command);
        assert_eq!(refused["kind"], "untrusted");
        assert!(refused["hint"].as_str().unwrap().contains(&format!("watari trust {}", node_id(&here))));
    }
    there.ok(&["trust", &node_id(&here)]);
    let console = there.listen_from_start("m");
    there.ok(&["start", "m"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");
    check(&there, "m", 1);

    // What it has become there comes back, and the old stays what it was.
    there.ok(&["restore", "m@3", "--discard"]);
    assert_eq!(there.ok(&["checkpoint", "m"])["generation"], 4);
    there.ok(&["push", "m", &at("stick")]);
    let back = here.ok(&["pull", "m@4", &at("stick")]);
    assert_eq!((&back["is_new"], &back["snapshots"]), (&false.into(), &1.into()));
    assert!(back["pages_received"].as_u64().unwrap() < 10_000, "{back}");
    assert_eq!(here.generations("m"), [4, 3, 2, 1]);
    assert_eq!(here.fails(&["restore", "m@4"])["kind"], "untrusted");
    here.ok(&["trust", &node_id(&there)]);
    check(&here, "m", 4);
    for lab in [&here, &there] {
        assert_eq!(lab.ok(&["verify"])["damaged"], Value::Array(vec![]));
    }
}

#[test]
fn one_file_may_be_cut_and_an_encrypted_one_needs_its_passphrase() {
    let (here, there) = (Lab::new(), Lab::new());
    let stick = tempfile::tempdir().unwrap();
    let at = |name: &str| stick.path().join(name).to_string_lossy().into_owned();
    here.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    here.ok(&["checkpoint", "m"]);
    here.ok(&["export", "m", &at("m.tar")]);
    read(Path::new(&at("m.tar")), "m@1", &["--trust"]);

    let whole = fs::read(at("m.tar")).unwrap();
    fs::write(at("m.tar"), &whole[..whole.len() / 2]).unwrap();
    let refused = there.fails(&["import", &at("m.tar")]);
    assert!(refused["message"].as_str().unwrap().contains("there is no machine in"), "{refused}");
    here.ok(&["export", "m", &at("m.tar")]);
    let came = there.ok(&["import", &at("m.tar"), "elsewhere"]);
    assert_eq!((&came["name"], &came["snapshots"]), (&"elsewhere".into(), &1.into()));

    fs::write(at("words"), "correct horse\n").unwrap();
    fs::write(at("wrong"), "wrong horse\n").unwrap();
    here.ok(&["export", "m", &at("sealed.tar"), "--passphrase-file", &at("words")]);
    assert!(
        there.fails(&["import", &at("sealed.tar")])["message"].as_str().unwrap().contains("is encrypted")
    );
    let refused = there.fails(&["import", &at("sealed.tar"), "--passphrase-file", &at("wrong")]);
    assert!(refused["message"].as_str().unwrap().contains("does not open"), "{refused}");
    let came = there.ok(&["import", &at("sealed.tar"), "--passphrase-file", &at("words")]);
    assert_eq!((&came["is_new"], &came["pages_received"]), (&false.into(), &0.into()));
    let refused = there.fails(&["import", &at("m.tar"), "other"]);
    assert!(refused["message"].as_str().unwrap().contains("as elsewhere"), "{refused}");
    there.ok(&["trust", &node_id(&here)]);
    let console = there.listen_from_start("elsewhere");
    there.ok(&["start", "elsewhere"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");

    // What had arrived whole before a cut is not sent again: it is cut in the manifest, of 32 bytes a page, behind all packs.
    here.ok(&["checkpoint", "m"]);
    let second = here.ok(&["export", "m@2", &at("m.tar")]);
    assert!(second["pages_written"].as_u64().unwrap() > 8000, "{second}");
    let whole = fs::read(at("m.tar")).unwrap();
    fs::write(at("m.tar"), &whole[..whole.len() - 100_000]).unwrap();
    read(Path::new(&at("m.tar")), "m@1", &["--trust"]);
    let again = here.ok(&["export", "m@2", &at("m.tar")]);
    assert_eq!(again["pages_written"], 0, "{again} {second}");
    assert!(
        again["bytes_written"].as_u64().unwrap() < second["bytes_written"].as_u64().unwrap() / 2,
        "{again} {second}"
    );
    read(Path::new(&at("m.tar")), "m@2", &[]);
}
