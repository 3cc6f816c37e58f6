//! What goes with the messages: enough for the other side to act on them.

use serde::{Deserialize, Serialize};
use watari_types::{BridgeName, Epoch, ErrorReport, MachineConfig, MachineName, Retention, SnapshotId};

use super::Message;

/// A message, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What is said.
    pub message: Message,
    /// What it takes to act on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<Visitor>,
}

/// A machine that could come: what goes with a [`Prepare`](Message::Prepare).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// What it is called where it is.
    pub name: MachineName,
    /// What it is made of.
    pub config: Box<MachineConfig>,
    /// The version of QEMU it runs on.
    pub qemu_version: String,
    /// The bridge that its network cards are plugged into.
    pub bridge: Option<BridgeName>,
    /// Whether it is to go on before what it holds has come.
    pub lazy: bool,
}

/// A machine that comes: what is said between a [`Ready`](Message::Ready) and a [`Commit`](Message::Commit).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// At which epoch.
    pub epoch: Epoch,
    /// What it is called where it is.
    pub name: MachineName,
    /// What it is made of.
    pub config: Box<MachineConfig>,
    /// The snapshots that it descends from, the newest first. What differs from the first of them that is there comes next.
    pub lineage: Vec<SnapshotId>,
    /// Whether it goes on before that has come, and none of them needs to be there.
    pub lazy: bool,
    /// Which of its snapshots are to be kept.
    pub retention: Retention,
    /// The bridge that its network cards are plugged into.
    pub bridge: Option<BridgeName>,
}

/// What there is of a machine where it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footing {
    /// The newest of its lineage.
    pub base: Option<SnapshotId>,
    /// Whether the files that it boots from are missing.
    pub lacks_boot: bool,
}

/// What the other side says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Its message; nothing if it cannot say yet.
    pub message: Option<Message>,
    /// Why it does not do what was asked.
    pub why: Option<ErrorReport>,
}
