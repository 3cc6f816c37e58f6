//! What goes with the messages: enough for the other side to act on them.

use serde::{Deserialize, Serialize};
use watari_types::{ErrorReport, Generation, MachineConfig, MachineName, Retention, SnapshotId};

use super::Message;

/// A message, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What is said.
    pub message: Message,
    /// What it takes to act on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What it takes to prepare for a machine, or to load it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Details {
    /// A machine could come.
    Prepare {
        /// What it is called where it is.
        name: MachineName,
        /// What it is made of.
        config: Box<MachineConfig>,
        /// The version of QEMU it runs on.
        qemu_version: String,
    },
    /// It comes, as this snapshot of it, which is there already.
    Commit {
        /// What it was called.
        name: MachineName,
        /// The snapshot's number.
        generation: Generation,
        /// The snapshot.
        snapshot: SnapshotId,
        /// Which of its snapshots are to be kept.
        retention: Retention,
    },
}

/// What the other side says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Its message; nothing if it cannot say yet.
    pub message: Option<Message>,
    /// Why it does not do what was asked.
    pub why: Option<ErrorReport>,
}
