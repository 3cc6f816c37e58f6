//! A local network with nodes on it, in network namespaces.

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::lab::spaces::{Spaces, ip};

/// QEMU's bridge helper may plug machines in here (`scripts/setup --test`).
pub const BRIDGE: &str = "watari-test";
pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
pub const GUEST: &str = "10.78.0.50";
const SWITCH: &str = "switch";

/// A switch, in a namespace of its own, that gives the guest its address; and namespaces that have a bridge plugged into it.
pub struct Lan {
    spaces: Spaces,
    pub nodes: Vec<String>,
    folder: TempDir,
    dhcp: Option<Child>,
}

impl Lan {
    pub fn new() -> Lan {
        let mut spaces = Spaces::default();
        let switch = Lan::bridge(&mut spaces, SWITCH, "10.78.0.1/24");
        let nodes: Vec<String> = (1..)
            .zip(NAMES)
            .map(|(index, name)| {
                let node = Lan::bridge(&mut spaces, name, &format!("10.78.0.1{index}/24"));
                ip(&format!("-n {switch} link add port{index} type veth peer name uplink netns {node}"));
                for (space, port) in [(&switch, format!("port{index}")), (&node, "uplink".to_owned())] {
                    ip(&format!("-n {space} link set {port} up master {BRIDGE}"));
                }
                node
            })
            .collect();
        let mut lan = Lan { spaces, nodes, folder: tempfile::tempdir().unwrap(), dhcp: None };
        lan.serve_addresses();
        lan
    }

    fn serve_addresses(&mut self) {
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

    fn bridge(spaces: &mut Spaces, name: &str, address: &str) -> String {
        let space = spaces.add(name);
        ip(&format!("-n {space} link add {BRIDGE} type bridge forward_delay 0"));
        ip(&format!("-n {space} addr add {address} dev {BRIDGE}"));
        ip(&format!("-n {space} link set {BRIDGE} up"));
        space
    }

    /// Something that runs at the switch.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.spaces.get(SWITCH), program]);
        command
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(dhcp) = &mut self.dhcp {
            let _ = dhcp.kill();
            let _ = dhcp.wait();
        }
    }
}
