//! A machine's network cable.
//!
//! QEMU saves the state of the link with the devices, so a guest that is resumed would find the cable as it was
//! when the snapshot was taken. But a cable is no part of the past: once a person has decided about it, by
//! `network` or by making a clone, it stays so through restores and power cycles, until the person decides
//! otherwise. `machines/NAME/network.json` holds that decision. Without one, the snapshot decides.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watari_keeper::home::MachineHome;
use watari_keeper::protocol::{NetworkAction, Request, Status};
use watari_keeper::record::{NetworkStart, load_json, save_json};
use watari_store::Snapshot;
use watari_types::{BridgeName, MachineConfig, MachineName};

use crate::api::{MachineInfo, NetworkChange, NetworkRequest};
use crate::create::random_mac;
use crate::node::Node;
use crate::{Error, Result};

/// A person's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cable {
    pub(crate) plugged: bool,
}

impl Cable {
    const FILE: &str = "network.json";

    pub(crate) fn load(home: &MachineHome) -> Result<Option<Cable>> {
        let path = home.folder().join(Self::FILE);
        if !fs::exists(&path).unwrap_or(true) {
            return Ok(None);
        }
        Ok(Some(load_json(&path)?))
    }

    pub(crate) fn save(self, home: &MachineHome) -> Result<()> {
        Ok(save_json(&home.folder().join(Self::FILE), &self)?)
    }
}

/// Refuses a bridge that this computer does not have.
pub(crate) fn ensure_bridge(bridge: Option<&BridgeName>) -> Result<()> {
    match bridge {
        Some(bridge) if !Path::new("/sys/class/net").join(bridge.as_str()).join("bridge").exists() => {
            Err(Error::NoBridge(bridge.clone()))
        }
        _ => Ok(()),
    }
}

impl Node {
    /// Plugs, unplugs or replaces the network card.
    pub(crate) fn network(
        self: &Arc<Self>,
        name: &MachineName,
        request: NetworkRequest,
    ) -> Result<MachineInfo> {
        let (action, plugged) = match request.action {
            NetworkChange::Plug => (NetworkAction::Plug, true),
            NetworkChange::Unplug => (NetworkAction::Unplug, false),
            NetworkChange::Fresh => (NetworkAction::Replace { mac: random_mac()? }, true),
        };
        self.steer(name, &Request::Network { action })?;
        Cable { plugged }.save(&self.home.machine(name))?;
        self.info(name)
    }

    /// Pulls the cable of a machine that was just started in a way that plugs it in.
    pub(crate) fn unplug(&self, name: &MachineName) -> Result<()> {
        let request = Request::Network { action: NetworkAction::Unplug };
        self.ask::<Status>(name, &request, &|_| {}).map(drop)
    }
}

/// How a machine that goes back to a snapshot gets its network. Its address is the one it has now: with an older
/// one it could be taken for the machine it is a clone of.
pub(crate) fn network_after_rollback(
    cable: Option<Cable>,
    config: &MachineConfig,
    snapshot: &Snapshot,
) -> NetworkStart {
    match cable {
        _ if snapshot.draft.config.nics != config.nics => NetworkStart::Fresh,
        None => NetworkStart::Same,
        Some(Cable { plugged: true }) => NetworkStart::Plugged,
        Some(Cable { plugged: false }) => NetworkStart::Unplugged,
    }
}
