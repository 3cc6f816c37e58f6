//! `up`, `down`, `node`: one daemon for each home.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::Bench;

#[test]
fn a_second_daemon_on_the_same_home_is_refused() {
    let bench = Bench::with_daemon();
    assert_eq!(bench.json("node").error_kind(), "home_in_use");
    bench.json("list").well();
}

#[test]
fn up_starts_one_daemon_and_down_stops_it() {
    let bench = Bench::new();
    let first = bench.json("up").well().json();
    let again = bench.json("up").well().json();
    assert_eq!(first, again);
    for field in ["node_id", "api", "web_url"] {
        assert!(!first[field].as_str().unwrap().is_empty(), "{field}");
    }
    assert_eq!(bench.json("down").well().json()["node_id"], first["node_id"]);
    assert_eq!(bench.json("list").error_kind(), "no_daemon");
    let later = bench.json("up").well().json();
    bench.json("down --machines").well();
    assert_eq!(later["node_id"], first["node_id"], "a node keeps its key");
    assert!(later["pid"] != first["pid"]);
}

#[test]
fn a_daemon_that_was_killed_can_be_started_again() {
    let mut bench = Bench::with_daemon();
    bench.create("m");
    bench.kill_daemon();
    assert_eq!(bench.json("list").error_kind(), "no_daemon");
    bench.start();
    assert_eq!(bench.json("list").well().json()["machines"][0]["name"], "m");
    bench.json("down").well();
    assert_eq!(bench.wait_for_daemon(), Some(0));
}

#[test]
fn only_the_owner_may_use_the_sockets_folder_and_the_token() {
    let bench = Bench::with_daemon();
    let mode = |path: &str| fs::metadata(bench.home().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("run/node"), mode("node/web-token")], [0o600, 0o600]);
    assert_eq!(mode("run"), 0o700);
    let secret = fs::read(bench.home().join("node/key")).unwrap();
    assert!(!secret.is_empty());
    assert_eq!(mode("node/key"), 0o600);
}
