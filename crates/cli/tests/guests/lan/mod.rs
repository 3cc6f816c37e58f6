//! A guest on a local network walks around the nodes there, and whoever talks to it notices nothing. Needs root, for network
//! namespaces.

mod cables;
mod host;
mod visitors;

use self::cables::{BRIDGE, GUEST, Lan, NAMES};
use self::visitors::{Download, Session, Switch};
use crate::lab::spaces::ip;
use crate::lab::{Lab, join, numbers, wait};

const RUN: &str = "watari.run=stamp watari.args=mem=32M,mem-rate=10,disk-rate=1";

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
    let key = host::create(&labs[0], "m", RUN);
    let console = labs[0].listen("m");
    labs[0].ok(&["start", "m"]);
    console.wait_for("STAMP pass=1");
    wait("the guest's address", || {
        let ping = lan.command("busybox").args(["ping", "-c", "1", "-W", "1", GUEST]).output().unwrap();
        ping.status.success().then_some(())
    });
    let card = wait("its servers", || Session::once(&lan, &key, "cat /sys/class/net/eth0/address"));
    let switch = Switch::listen(&lan);
    let mut session = Session::begin(&lan, &key);
    let download = Download::begin(&lan);
    session.say("hello");
    for turn in 0..moves {
        let (left, lab) = (&labs[turn % 3], &labs[(turn + 1) % 3]);
        let (name, lines) = (NAMES[(turn + 1) % 3], download.lines());
        let announced = switch.has_heard(&card);
        // Every other time its guest first, and what it holds after it.
        let is_lazy = turn % 2 == 1;
        left.ok(&[&["teleport", "m", name][..], if is_lazy { &["--lazy"] } else { &[] }].concat());
        session.say(&format!("now at {name}"));
        wait("more lines", || (download.lines() > lines + 1000).then_some(()));
        wait("the network to be told", || (switch.has_heard(&card) >= announced + 3).then_some(()));
        if is_lazy {
            left.wait_for_state("m", "suspended");
        }
        assert_eq!(lab.machine("m")["epoch"], turn + 2);
    }
    let (lab, said) = (&labs[moves % 3], labs[moves % 3].serial("m").len());
    wait("two more passes", || (numbers(&lab.serial("m")[said..], "STAMP pass=").len() >= 2).then_some(()));
    for lab in &labs {
        assert!(!lab.serial("m").contains("STAMP ERROR"), "{}", lab.serial("m"));
        assert_eq!(lab.ok(&["verify"])["damaged"], serde_json::json!([]));
    }
    // A node without its bridge does not take it.
    let other = (moves + 1) % 3;
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
