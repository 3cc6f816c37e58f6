//! Two nodes that cannot reach each other: through a relay, and past it as soon as the gates between them let them. Needs root,
//! for network namespaces.

mod gates;
mod relay;

use self::gates::{Apart, Datagrams, OUTSIDE, RELAY};
use self::relay::Relay;
use crate::lab::{Lab, join, numbers, wait};

const NAMES: [&str; 2] = ["alpha", "beta"];
const STAMPS: &str = "watari.run=stamp watari.args=mem=16M,mem-rate=2,disk-rate=1";

/// How a node gets to another one.
fn way(lab: &Lab, name: &str) -> String {
    let nodes = lab.ok(&["nodes"])["nodes"].as_array().unwrap().clone();
    let node = nodes.into_iter().find(|node| node["name"] == name);
    node.and_then(|node| Some(node["addr"].as_str()?.to_owned())).unwrap_or_default()
}

/// Has the guest go to the other node, and stamp all of its memory and disk there.
fn goes(from: &Lab, to: &Lab, name: &str) {
    from.ok(&["teleport", "m", name]);
    let console = to.listen("m");
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");
}

/// The two nodes; whether each has a relay of its own is said for each.
fn nodes(apart: &Apart, relay: &Relay, has_relay: [bool; 2]) -> Vec<Lab> {
    let settings = |name: &str, has_relay: bool| match has_relay {
        true => format!("name = \"{name}\"\nrelay = \"https://{RELAY}\""),
        false => format!("name = \"{name}\""),
    };
    let node = |index: usize| {
        let settings = settings(NAMES[index], has_relay[index]);
        let trusts = ("SSL_CERT_FILE", relay.certificate());
        Lab::with(&settings, Some(apart.insides()[index]), &[trusts])
    };
    let labs = vec![node(0), node(1)];
    join(&labs, &NAMES);
    for (lab, other) in [(&labs[0], "beta"), (&labs[1], "alpha")] {
        assert_eq!(way(lab, other), format!("through https://{RELAY}/"));
    }
    labs
}

#[test]
fn nodes_apart_meet_at_a_relay_and_do_without_it_when_they_can() {
    let apart = Apart::new();
    let relay = Relay::start(apart.between(), RELAY);
    let labs = nodes(&apart, &relay, [true, true]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "128M", "16M", STAMPS, "STAMP pass=1");
    goes(alpha, beta, "beta");

    apart.let_through(Datagrams::Answers);
    for (lab, other) in [(alpha, "beta"), (beta, "alpha")] {
        wait("a way past the relay", || way(lab, other).starts_with(OUTSIDE).then_some(()));
    }
    drop(relay);
    goes(beta, alpha, "alpha");
    for lab in &labs {
        assert_eq!(lab.ok(&["verify"])["damaged"], serde_json::json!([]));
    }
}

#[test]
fn one_relay_is_enough_for_who_calls() {
    let apart = Apart::new();
    let relay = Relay::start(apart.between(), RELAY);
    let labs = nodes(&apart, &relay, [true, false]);
    labs[1].start_demo("m", "128M", "16M", STAMPS, "STAMP pass=1");
    goes(&labs[1], &labs[0], "alpha");
}
