//! A machine's serial console, used by several at once: on a real guest.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::lab::programs::Running;
use crate::lab::{Lab, text, wait, wait_within};

/// A serial line under emulation takes about a minute for two megabytes.
const LIMIT: Duration = Duration::from_secs(600);

/// Somebody who uses a machine's console, and what that one sees.
struct User {
    console: Running,
    seen: PathBuf,
}

impl User {
    fn attach(lab: &Lab, user: &str) -> User {
        let seen = lab.home().join(user);
        let mut command = lab.watari(&["console", "m"]);
        command.stdin(Stdio::piped()).stdout(File::create(&seen).unwrap());
        User { console: Running::start(&mut command), seen }
    }

    fn types(&mut self, keys: &str) {
        self.console.0.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn waits_for(&self, what: &str) -> String {
        wait_within(LIMIT, &format!("{what:?} in {}", self.seen.display()), || {
            let seen = text(&fs::read(&self.seen).unwrap());
            seen.contains(what).then_some(seen)
        })
    }
}

#[test]
fn all_who_use_a_console_see_the_same_and_who_takes_nothing_holds_up_nobody() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", "watari.run=counter", "tick 5");
    let mut slow = lab.watari(&["console", "m"]);
    let mut slow = Running::start(slow.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (mut one, mut two) = (User::attach(&lab, "one"), User::attach(&lab, "two"));
    two.waits_for("tick ");
    one.waits_for("tick ");
    // A shell opens on the first line, and reads the others. What it echoes is not what it prints.
    one.types("\n");
    two.waits_for("# ");
    two.types("echo be''gin; seq 1 300000; echo all pri''nted\n");
    let part = |seen: String| {
        let (begin, end) = (seen.find("begin").unwrap(), seen.find("all printed").unwrap());
        seen[begin..end].to_owned()
    };
    let (one_saw, two_saw) = (part(one.waits_for("all printed")), part(two.waits_for("all printed")));
    let printed: Vec<String> = (1..=300_000).map(|line| line.to_string()).collect();
    assert!(one_saw.lines().skip(1).eq(printed) && one_saw == two_saw);

    lab.ok(&["kill", "m"]);
    for user in [&mut one, &mut two] {
        wait("the console to end with the machine", || user.console.is_over().then_some(()));
        assert!(user.console.0.wait().unwrap().success());
    }
    let (mut seen, mut said) = (String::new(), String::new());
    slow.0.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    slow.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(slow.0.wait().unwrap().success());
    assert!(seen.contains("all printed") && said.contains("bytes are left out"), "{said}");
    assert_eq!(lab.fails(&["console", "m"])["kind"], "wrong_state");
}
