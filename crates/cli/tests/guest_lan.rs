//! A guest on a local network walks around the nodes there, and whoever talks to it notices nothing. Needs root, for network
//! namespaces.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on must say so and fail")]

mod lab;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use lab::{Lab, join, wait};
use tempfile::TempDir;

/// QEMU's bridge helper may plug machines in here (`scripts/setup --test`).
const BRIDGE: &str = "watari-test";
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const GUEST: &str = "10.78.0.50";
const RUN: &str = "watari.serve watari.run=stamp watari.args=mem=32M,mem-rate=10,disk-rate=1";

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", lab::text(&done.stderr));
}

/// A switch, in a namespace of its own, that gives the guest its address; and namespaces that have a bridge plugged into it.
struct Lan {
    switch: String,
    nodes: Vec<String>,
    folder: TempDir,
    dhcp: Option<Child>,
}

impl Lan {
    fn new() -> Lan {
        let name = |what: &str| format!("watari-{what}-{}", std::process::id());
        let nodes = NAMES.map(name).to_vec();
        let mut lan = Lan { switch: name("switch"), nodes, folder: tempfile::tempdir().unwrap(), dhcp: None };
        lan.lay();
        lan
    }

    fn lay(&mut self) {
        let switch = &self.switch;
        Lan::bridge(switch, "10.78.0.1/24");
        for (index, node) in (1..).zip(&self.nodes) {
            Lan::bridge(node, &format!("10.78.0.1{index}/24"));
            ip(&format!("-n {switch} link add port{index} type veth peer name uplink netns {node}"));
            for (space, port) in [(switch, format!("port{index}")), (node, "uplink".to_owned())] {
                ip(&format!("-n {space} link set {port} up master {BRIDGE}"));
            }
        }
        let leases = self.folder.path().join("leases");
        fs::write(&leases, "").unwrap();
        let config = self.folder.path().join("udhcpd.conf");
        let text = format!(
            "interface {BRIDGE}\nstart {GUEST}\nend {GUEST}\noption subnet 255.255.255.0\nlease_file {}\n",
            leases.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = self.command("busybox");
        command.args(["udhcpd", "-f", config.to_str().unwrap()]).stderr(Stdio::null());
        self.dhcp = Some(command.spawn().unwrap());
    }

    fn bridge(space: &str, address: &str) {
        ip(&format!("netns add {space}"));
        ip(&format!("-n {space} link set lo up"));
        ip(&format!("-n {space} link add {BRIDGE} type bridge forward_delay 0"));
        ip(&format!("-n {space} addr add {address} dev {BRIDGE}"));
        ip(&format!("-n {space} link set {BRIDGE} up"));
    }

    /// Something that runs at the switch.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch, program]);
        command
    }

    /// Somebody who talks to a port of the guest's.
    fn connect(&self, port: &str) -> Child {
        let mut command = self.command("busybox");
        command.args(["nc", GUEST, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(dhcp) = &mut self.dhcp {
            let _ = dhcp.kill();
            let _ = dhcp.wait();
        }
        for space in [&self.switch].into_iter().chain(&self.nodes) {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}

/// Numbered lines that come from the guest without end; each must come once, and none be missing.
struct Download {
    child: Child,
    lines: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Download {
    fn begin(mut child: Child) -> Download {
        let mut from = BufReader::new(child.stdout.take().unwrap());
        let (lines, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (Arc::clone(&lines), Arc::clone(&is_over));
        let reader = thread::spawn(move || {
            let mut line = String::new();
            loop {
                line.clear();
                let bytes = from.read_line(&mut line).unwrap();
                if over.load(Ordering::Relaxed) {
                    return;
                }
                assert!(bytes > 0, "the download ended");
                let number = count.load(Ordering::Relaxed) + 1;
                assert_eq!(line, format!("line {number}\n"));
                count.store(number, Ordering::Relaxed);
            }
        });
        Download { child, lines, is_over, reader: Some(reader) }
    }

    fn lines(&self) -> u64 {
        assert!(!self.reader.as_ref().unwrap().is_finished(), "the download is wrong");
        self.lines.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.end();
        if self.reader.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("the download was wrong");
        }
    }
}

/// Somebody who says something and waits for the answer.
struct Session {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Session {
    fn begin(mut child: Child) -> Session {
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Session { child, to, from }
    }

    fn say(&mut self, words: &str) {
        self.to.write_all(words.as_bytes()).unwrap();
        let mut answer = vec![0; words.len()];
        self.from.read_exact(&mut answer).unwrap();
        assert_eq!(lab::text(&answer), words);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_talks_to_a_guest_that_walks_around_notices_nothing() {
    let moves: usize = std::env::var("WATARI_MOVES").map_or(15, |moves| moves.parse().unwrap());
    let lan = Lan::new();
    let at = |index: usize| {
        let listen = format!("10.78.0.1{}:4917", index + 1);
        Lab::at(NAMES[index], &listen, Some(&lan.nodes[index]))
    };
    let labs: Vec<Lab> = (0..3).map(at).collect();
    join(&labs, &NAMES);
    labs[0].ok(&[
        "create", "m", "--demo", "--memory", "128M", "--disk", "16M", "--append", RUN, "--bridge", BRIDGE,
    ]);
    let console = labs[0].listen("m");
    labs[0].ok(&["start", "m"]);
    console.wait_for("STAMP pass=1");
    wait("the guest's address", || {
        let ping = lan.command("busybox").args(["ping", "-c", "1", "-W", "1", GUEST]).output().unwrap();
        ping.status.success().then_some(())
    });
    let mut session = Session::begin(lan.connect("7"));
    let download = Download::begin(lan.connect("19"));
    session.say("hello");
    for turn in 0..moves {
        let (here, there) = (&labs[turn % 3], (turn + 1) % 3);
        let lines = download.lines();
        here.ok(&["teleport", "m", NAMES[there]]);
        session.say(&format!("now at {}", NAMES[there]));
        wait("more lines", || (download.lines() > lines + 1000).then_some(()));
    }
    // Once more, with what it holds after it.
    let (left, lab) = (&labs[moves % 3], &labs[(moves + 1) % 3]);
    let said = lab.serial("m").len();
    let lines = download.lines();
    left.ok(&["teleport", "m", NAMES[(moves + 1) % 3], "--lazy"]);
    session.say("first");
    wait("more lines", || (download.lines() > lines + 1000).then_some(()));
    let said = wait("two more passes", || {
        let said = lab.serial("m").split_off(said);
        (lab::numbers(&said, "STAMP pass=").len() >= 2).then_some(said)
    });
    assert!(!said.contains("STAMP ERROR"), "{said}");
    left.wait_for_state("m", "suspended");
    for lab in &labs {
        assert!(!lab.serial("m").contains("STAMP ERROR"), "{}", lab.serial("m"));
        assert_eq!(lab.ok(&["verify"])["damaged"], serde_json::json!([]));
    }
    assert_eq!(lab.machine("m")["epoch"], moves + 2);
    // A node without its bridge does not take it.
    let other = (moves + 2) % 3;
    for change in ["down", "name elsewhere"] {
        ip(&format!("-n {} link set {BRIDGE} {change}", lan.nodes[other]));
    }
    ip(&format!("-n {} link set elsewhere up", lan.nodes[other]));
    let refused = lab.fails(&["teleport", "m", NAMES[other]]);
    assert_eq!(refused["kind"], "bad_request", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(BRIDGE), "{refused}");
    session.say("still here");
}

#[test]
fn a_bridge_that_is_not_there_is_refused() {
    let lab = Lab::new();
    let refused = lab.fails(&["create", "m", "--demo", "--bridge", "nowhere"]);
    assert_eq!(refused["kind"], "bad_request", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("nowhere"), "{refused}");
}
