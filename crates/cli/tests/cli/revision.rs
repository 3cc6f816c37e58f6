//! What a revision names, and what it does not.

use watari_store::Store;
use watari_types::MachineId;

use crate::common::Bench;
use crate::diff::publish;

#[test]
fn a_revision_that_nothing_answers_to_changes_nothing() {
    let bench = Bench::with_daemon();
    bench.create("m");
    let before = bench.machine_files();
    for rev in ["m@1", "m@before", "deadbeef", "00112233445566778899"] {
        for line in [
            format!("show {rev}"),
            format!("restore {rev}"),
            format!("clone {rev} new"),
            format!("disk serve {rev}"),
            format!("core {rev} file"),
            format!("diff {rev}"),
            format!("diff {rev} m"),
            format!("tag {rev} t"),
            format!("tag --remove {rev}"),
        ] {
            assert_eq!(bench.json(&line).error_kind(), "bad_revision", "{line}");
        }
    }
    for line in
        ["restore m", "clone m new", "disk serve m", "core m file", "diff m", "tag m t", "tag --remove m"]
    {
        assert_eq!(bench.json(line).error_kind(), "bad_revision", "{line}");
    }
    assert_eq!(bench.machine_files(), before);
}

#[test]
fn a_machine_without_snapshots_is_shown_alone() {
    let bench = Bench::with_daemon();
    bench.create("m");
    let shown = bench.json("show m").well().json();
    assert_eq!(shown["machine"]["name"], "m");
    assert!(shown.get("id").is_none());
    assert_eq!(bench.json("log m").well().stdout, "{\"snapshots\":[]}\n");
}

#[test]
fn a_snapshot_without_memory_is_refused_where_memory_is_needed() {
    let bench = Bench::with_daemon();
    let machine: MachineId = bench.create("m")["id"].as_str().unwrap().parse().unwrap();
    publish(&Store::open(&bench.home().join("store")).unwrap(), machine, 1, None, &[0; 1 << 20]);
    let file = bench.home().with_file_name("core");
    for line in ["clone m@1 new".to_owned(), format!("core m@1 {}", file.display())] {
        let done = bench.json(&line);
        assert_eq!(done.error_kind(), "bad_revision", "{line}");
        assert_eq!(done.json()["error"]["message"], "m@1: holds no memory");
    }
    assert!(!file.exists());
}
