//! Machines that do not run: looking at them, refusing what needs a guest, removing them.

use crate::common::Bench;

#[test]
fn a_machine_that_is_not_there_is_unknown_to_every_command() {
    let bench = Bench::with_daemon();
    for line in [
        "show zzz",
        "log zzz",
        "diff zzz",
        "diff zzz@1 zzz@2",
        "tag zzz@1 t",
        "tag --remove zzz@t",
        "start zzz",
        "stop zzz",
        "kill zzz",
        "pause zzz",
        "resume zzz",
        "checkpoint zzz",
        "restore zzz",
        "restore zzz@1",
        "clone zzz new",
        "clone zzz@1 new",
        "console zzz",
        "screenshot zzz /dev/null",
        "disk serve zzz",
        "core zzz f",
        "network zzz unplug",
        "rm zzz",
        "verify zzz",
    ] {
        assert_eq!(bench.json(line).error_kind(), "unknown_machine", "{line}");
    }
    let text = bench.run(["start", "zzz"]);
    assert_eq!(text.stderr, "error: there is no machine zzz\nhint: `watari list` shows the machines\n");
}

#[test]
fn what_needs_a_running_guest_is_refused_with_the_way_to_one() {
    let bench = Bench::with_daemon();
    bench.create("m");
    for line in [
        "stop m",
        "kill m",
        "pause m",
        "resume m",
        "checkpoint m -m x --tag t",
        "console m",
        "screenshot m /dev/null",
        "network m fresh",
    ] {
        let done = bench.json(line);
        assert_eq!(done.error_kind(), "wrong_state", "{line}");
        assert!(done.json()["error"]["hint"].as_str().unwrap().contains("watari start m"), "{line}");
    }
}

#[test]
fn the_list_tells_what_each_machine_is() {
    let bench = Bench::with_daemon();
    assert_eq!(bench.json("list").well().stdout, "{\"machines\":[]}\n");
    bench.create("b");
    bench.create("a");
    let list = bench.json("list").well().json();
    let machines = list["machines"].as_array().unwrap();
    assert_eq!([&machines[0]["name"], &machines[1]["name"]], ["a", "b"]);
    for machine in machines {
        assert_eq!(machine["state"], "stopped");
        assert_eq!(machine["epoch"], 0);
        assert!(machine["generation"].is_null());
        assert_eq!(machine["node"].as_str().unwrap().len(), 64);
    }
    insta::assert_snapshot!("list", bench.run(["list"]).well().stdout);
}

#[test]
fn a_removed_machine_is_gone_and_its_name_is_free() {
    let bench = Bench::with_daemon();
    bench.create("m");
    let removed = bench.json("rm m").well().json();
    assert_eq!(removed["name"], "m");
    assert!(removed["freed_bytes"].as_u64().unwrap() >= 8192);
    assert!(bench.machine_files().is_empty());
    assert!(!bench.home().join("run/m").exists());
    assert_eq!(bench.json("show m").error_kind(), "unknown_machine");
    bench.create("m");
}

#[test]
fn a_machine_larger_than_the_host_is_not_started() {
    let bench = Bench::with_daemon();
    let kernel = bench.file("kernel", &crate::common::fake_kernel());
    bench.json(&format!("create huge --memory 4000G --kernel {}", kernel.display())).well();
    assert_eq!(bench.json("start huge").error_kind(), "not_enough_memory");
    assert_eq!(bench.json("show huge").well().json()["machine"]["state"], "stopped");
}

#[test]
fn verifying_an_empty_store_finds_nothing_wrong() {
    let bench = Bench::with_daemon();
    bench.create("m");
    for line in ["verify", "verify m"] {
        let found = bench.json(line).well().json();
        assert_eq!(
            (found["pages_checked"].as_u64(), found["damaged"].as_array().unwrap().len()),
            (Some(0), 0)
        );
    }
}
