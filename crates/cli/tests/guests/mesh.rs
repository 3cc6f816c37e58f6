//! A machine's snapshots go from one node of a mesh to another and back, and who is not of the mesh gets nothing.

use serde_json::Value;

use crate::lab::{Lab, joined, numbers, wait};

/// It writes to some 8,000 pages again and again: no more goes to and fro, however long a busy machine takes.
const STAMPS: &str = "watari.run=stamp watari.args=mem=16M,mem-rate=10,disk-rate=2";

fn nodes(lab: &Lab) -> Vec<Value> {
    lab.ok(&["nodes"])["nodes"].as_array().unwrap().clone()
}

/// What a node says of another one.
fn sees(lab: &Lab, name: &str) -> Option<Value> {
    nodes(lab).into_iter().find(|node| node["name"] == name)
}

fn wait_for(lab: &Lab, name: &str, state: &str) -> Value {
    wait(&format!("{name} to be {state}"), || sees(lab, name).filter(|node| node["state"] == state))
}

#[test]
fn a_machine_goes_to_another_node_and_what_it_became_there_comes_back() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    alpha.start_demo("m", "160M", "16M", STAMPS, "STAMP pass=1");
    alpha.ok(&["checkpoint", "m"]);
    let first = alpha.ok(&["push", "m", "beta"]);
    assert!(first["pages_sent"].as_u64().unwrap() > 10_000, "{first}");
    assert_eq!(alpha.ok(&["push", "m", "beta"])["pages_sent"], 0);
    alpha.ok(&["checkpoint", "m"]);
    let second = alpha.ok(&["push", "m", "BETA", "--limit", "20M"]);
    assert!(second["bytes_sent"].as_u64() < first["bytes_sent"].as_u64(), "{first} {second}");
    let held = wait_for(alpha, "beta", "alive");
    assert_eq!(
        (&held["machines"][0]["name"], &held["machines"][0]["state"]),
        (&"m".into(), &"held".into()),
        "{held}"
    );
    assert!(
        held["rtt_ms"].as_f64().unwrap() < 1000.0 && held["addr"].as_str().unwrap().starts_with("127.0.0.1:")
    );
    alpha.ok(&["kill", "m"]);

    // It is all there already.
    let came = beta.ok(&["pull", "m", "alpha"]);
    assert_eq!((&came["is_new"], &came["pages_received"]), (&true.into(), &0.into()), "{came}");
    assert_eq!(came["untrusted"], serde_json::json!([]), "nodes of one mesh trust each other");
    let console = beta.listen_from_start("m");
    beta.ok(&["start", "m"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");
    assert_eq!(alpha.fails(&["push", "m@1", "beta"])["kind"], "wrong_state", "it runs there");
    assert_eq!(beta.ok(&["checkpoint", "m"])["generation"], 3);

    let back = alpha.ok(&["pull", "m", "beta"]);
    assert_eq!((&back["is_new"], &back["generation"]), (&false.into(), &3.into()), "{back}");
    assert!(back["pages_received"].as_u64().unwrap() < 10_000, "{back}");
    beta.ok(&["kill", "m"]);
    let console = alpha.listen("m");
    alpha.ok(&["restore", "m@3", "--discard"]);
    let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!said.contains("STAMP ERROR"), "{said}");
    for lab in [alpha, beta] {
        assert_eq!(lab.ok(&["verify"])["damaged"], Value::Array(vec![]));
    }
}

#[test]
fn nodes_come_and_go_and_who_is_taken_out_gets_nothing() {
    let labs = joined(&["alpha", "beta", "gamma"]);
    let (alpha, beta, gamma) = (&labs[0], &labs[1], &labs[2]);
    assert_eq!(alpha.fails(&["join", "watari1aaaa"])["kind"], "bad_ticket");
    let refused = alpha.fails(&["push", "m", "nobody"]);
    assert_eq!(refused["kind"], "unknown_node");
    assert!(refused["hint"].as_str().unwrap().contains("./nobody"), "{refused}");
    beta.ok(&["down"]);
    wait("beta to be missed", || sees(alpha, "beta").filter(|node| node["state"] != "alive"));
    beta.ok(&["up"]);
    wait_for(alpha, "beta", "alive");
    // One that nobody told so is out as soon as it calls.
    let list = alpha.ok(&["nodes", "--remove", "gamma"]);
    assert_eq!(list["nodes"].as_array().unwrap().len(), 2);
    wait("beta to hear it", || sees(beta, "gamma").is_none().then_some(()));
    let refused = gamma.fails(&["pull", "m", "alpha"]);
    assert!(
        ["forbidden", "unreachable", "unknown_node"].contains(&refused["kind"].as_str().unwrap()),
        "{refused}"
    );
    // And may be let in again.
    gamma.ok(&["leave"]);
    assert_eq!(nodes(gamma).len(), 1);
    let ticket = beta.ok(&["invite", "--valid", "5m"])["ticket"].as_str().unwrap().to_owned();
    gamma.ok(&["join", &ticket]);
    wait_for(alpha, "gamma", "alive");
    assert_eq!(beta.ok(&["leave"])["told"], true);
    wait("alpha to hear it", || sees(alpha, "beta").is_none().then_some(()));
}

#[test]
fn a_computer_that_trusts_no_authority_can_be_in_a_mesh() {
    let nothing = |name: &'static str| (name, "/nonexistent".into());
    let mesh = "name = \"alpha\"\nlisten = [\"127.0.0.1:0\"]";
    let lab = Lab::with(mesh, None, &[nothing("SSL_CERT_FILE"), nothing("SSL_CERT_DIR")]);
    assert!(lab.ok(&["invite"])["ticket"].as_str().unwrap().starts_with("watari1"));
    lab.wait_for_node("alpha");
}
