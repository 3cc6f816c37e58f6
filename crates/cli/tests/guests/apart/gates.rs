//! Two networks that do not see each other, each behind a gate that lets out what its node begins and nothing in; and between
//! the gates a relay. All in network namespaces.

use std::fs;

use tempfile::TempDir;

use crate::lab::programs::run;
use crate::lab::spaces::{Spaces, ip};

/// Where the relay is.
pub const RELAY: &str = "203.0.113.1";
/// What the outside addresses of both gates begin with.
pub const OUTSIDE: &str = "203.0.113.";

/// The gates, and what is behind and between them.
pub struct Apart {
    spaces: Spaces,
    /// For what it takes to set them up.
    folder: TempDir,
}

/// What a gate does with datagrams.
#[derive(Clone, Copy, Debug)]
pub enum Datagrams {
    /// It lets none through.
    None,
    /// It lets out what comes from inside, from an address of its own, and in what answers that.
    Answers,
}

impl Apart {
    pub fn new() -> Apart {
        let mut spaces = Spaces::default();
        let between = spaces.add("between");
        ip(&format!("-n {between} link add hub type bridge forward_delay 0"));
        ip(&format!("-n {between} addr add {RELAY}/24 dev hub"));
        ip(&format!("-n {between} link set hub up"));
        for side in [1, 2] {
            let (gate, inside) = (spaces.add(&format!("gate{side}")), spaces.add(&format!("inside{side}")));
            ip(&format!("-n {between} link add port{side} type veth peer name out netns {gate}"));
            ip(&format!("-n {between} link set port{side} up master hub"));
            ip(&format!("-n {gate} link add in type veth peer name lan netns {inside}"));
            let own = [
                (&gate, "out", format!("{OUTSIDE}1{side}/24")),
                (&gate, "in", format!("10.79.{side}.1/24")),
                (&inside, "lan", format!("10.79.{side}.2/24")),
            ];
            for (space, card, address) in own {
                ip(&format!("-n {space} addr add {address} dev {card}"));
                ip(&format!("-n {space} link set {card} up"));
            }
            ip(&format!("-n {inside} route add default via 10.79.{side}.1"));
            run("ip", ["netns", "exec", &gate, "sysctl", "-q", "net.ipv4.ip_forward=1"]);
        }
        let apart = Apart { spaces, folder: tempfile::tempdir().unwrap() };
        apart.let_through(Datagrams::None);
        apart
    }

    /// The namespaces of the two nodes.
    pub fn insides(&self) -> [&str; 2] {
        [self.spaces.get("inside1"), self.spaces.get("inside2")]
    }

    /// The namespace of the relay.
    pub fn between(&self) -> &str {
        self.spaces.get("between")
    }

    /// Has both gates do that from now on.
    pub fn let_through(&self, datagrams: Datagrams) {
        let first = match datagrams {
            Datagrams::None => "meta l4proto udp drop",
            Datagrams::Answers => "",
        };
        let rules = format!(
            "flush ruleset
            table ip gate {{
                chain coming {{
                    type filter hook input priority 0; policy drop;
                }}
                chain forward {{
                    type filter hook forward priority 0; policy drop;
                    {first}
                    ct state established,related accept
                    iifname \"in\" accept
                }}
                chain leaving {{
                    type nat hook postrouting priority 100;
                    oifname \"out\" masquerade
                }}
            }}"
        );
        let file = self.folder.path().join("rules");
        fs::write(&file, rules).unwrap();
        for side in ["gate1", "gate2"] {
            run("ip", ["netns", "exec", self.spaces.get(side), "nft", "-f", file.to_str().unwrap()]);
        }
    }
}
