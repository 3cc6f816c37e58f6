//! What a snapshot says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watari_types::{
    Epoch, Generation, MachineConfig, MachineId, MachineName, NodeId, PageHash, Region, RegionName,
    SnapshotId,
};

/// What whoever makes a snapshot says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDraft {
    /// The machine.
    pub config: MachineConfig,
    /// Its name at the time.
    pub machine_name: MachineName,
    /// The snapshot that the deltas are relative to; none: relative to nothing but zeros.
    pub parent: Option<SnapshotId>,
    /// Its number in the machine's history.
    pub generation: Generation,
    /// How often the machine had been activated.
    pub epoch: Epoch,
    /// The line of history it belongs to.
    pub branch: String,
    /// When, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What the user says about it; may be empty.
    pub message: String,
    /// Every region the machine has at this snapshot.
    pub regions: Vec<Region>,
    /// The version of the QEMU that made the device state.
    pub qemu_version: String,
    /// What it ran on: `kvm` or `tcg`.
    pub accelerator: String,
    /// Of what the machine is a clone.
    pub origin: Option<Origin>,
    /// Whether memory and devices are part of it, so that it can be resumed rather than only booted.
    pub has_memory: bool,
}

/// Of what a machine is a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine it was cloned from.
    pub machine: MachineId,
    /// That machine's name at the time.
    pub name: MachineName,
    /// The snapshot it began with.
    pub snapshot: SnapshotId,
}

/// A published snapshot, as its manifest's header tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What was said about it.
    #[serde(flatten)]
    pub draft: SnapshotDraft,
    /// The node that made and signed it.
    pub node: NodeId,
    /// Of each region the name that stands for all it holds ([`PageTable::root`](watari_types::PageTable::root)); empty
    /// for snapshots of format version 1.
    pub roots: BTreeMap<RegionName, PageHash>,
    /// How many pages changed, for each region that has a delta.
    pub changes: BTreeMap<RegionName, PageCounts>,
    /// Bytes of device state before compression; 0 if there is none.
    pub device_state_bytes: u64,
    /// The manifest's length in bytes.
    pub manifest_bytes: u64,
}

/// How many pages of a region changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCounts {
    /// Pages with new content.
    pub data: u64,
    /// Pages that became zero.
    pub zero: u64,
}
