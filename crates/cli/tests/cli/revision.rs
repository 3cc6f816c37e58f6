//! What a revision names, and what it does not.

use crate::common::Bench;

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
            format!("diff {rev}"),
            format!("diff {rev} m"),
            format!("tag {rev} t"),
            format!("tag --remove {rev}"),
        ] {
            assert_eq!(bench.json(&line).error_kind(), "bad_revision", "{line}");
        }
    }
    for line in ["restore m", "clone m new", "disk serve m", "diff m", "tag m t", "tag --remove m"] {
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
