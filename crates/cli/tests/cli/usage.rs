//! What the command line takes, and how it refuses the rest.

use std::io::Read;
use std::process::Stdio;

use crate::common::Bench;

#[test]
fn the_commands_are_those_of_the_contract() {
    let help = Bench::new().run(["help"]).well().stdout;
    insta::assert_snapshot!("help", help);
}

#[test]
fn what_is_not_understood_exits_with_2() {
    let bench = Bench::new();
    for line in [
        "",
        "fly",
        "start",
        "start a b",
        "create x",
        "create x --demo --image y",
        "create x --image y --initrd z",
        "create x --demo --memory much",
        "clone a b --network loose",
        "clone a b --start --gdb",
        "disk",
        "diff",
        "diff a b c",
    ] {
        let done = bench.run(line.split_whitespace());
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{line}: {done:?}");
        assert!(!done.stderr.is_empty(), "{line}");
        let done = bench.json(line);
        assert_eq!((done.code, done.stderr.as_str()), (Some(2), ""), "{line}: {done:?}");
        assert_eq!(done.json()["error"]["kind"], "usage", "{line}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let bench = Bench::new();
    assert!(bench.run(["--version"]).well().stdout.starts_with("watari "));
    assert!(bench.run(["checkpoint", "--help"]).well().stdout.contains("--message"));
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let bench = Bench::new();
    for line in [
        "list",
        "show m",
        "log m",
        "diff m",
        "diff m@1 m@2",
        "tag m t",
        "tag --remove m@t",
        "create m --demo",
        "start m",
        "stop m",
        "kill m",
        "pause m",
        "resume m",
        "checkpoint m",
        "restore m",
        "restore m@1",
        "restore m@1 --discard",
        "clone m n",
        "clone m n --gdb",
        "console m",
        "screenshot m f",
        "disk serve m",
        "core m f",
        "network m plug",
        "rm m",
        "verify",
        "down",
    ] {
        assert_eq!(bench.json(line).error_kind(), "no_daemon", "{line}");
    }
    let done = bench.run(["list"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert!(
        lines[0].starts_with("error: no daemon answers") && lines[1] == "hint: `watari up` starts it",
        "{done:?}"
    );
    assert!(!bench.home().exists(), "asking changes nothing");
}

#[test]
fn a_name_that_would_leave_the_home_is_refused() {
    let bench = Bench::new();
    for line in ["create ../x --demo", "start ../x", "rm ../x", "clone m ../x", "log ../x", "verify ../x"] {
        assert_eq!(bench.json(line).error_kind(), "bad_name", "{line}");
    }
    for line in
        ["show ../x", "restore ../x", "clone ../x y", "disk serve m@", "show @3", "diff ../x", "diff m ../x"]
    {
        assert_eq!(bench.json(line).error_kind(), "bad_revision", "{line}");
    }
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let bench = Bench::new();
    let mut child =
        bench.command(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(["completions", shell]).well().stdout.contains("checkpoint"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    bench.run(["man", folder.path().to_str().unwrap()]).well();
    assert!(folder.path().join("watari-checkpoint.1").exists());
}
