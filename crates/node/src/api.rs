//! What the API's requests and answers hold. The same types serve the daemon and the command line.
//!
//! Long work answers either with its result alone or, to a client that accepts `application/x-ndjson`, with
//! lines of [`Reply`](watari_keeper::protocol::Reply): `progress` lines, then one `done` or `error`.

mod clone;
mod console;
mod core;
mod depots;
mod diff;
mod mesh;
mod restore;
mod screen;
mod teleport;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_keeper::costs::Cost;
use watari_keeper::protocol::{Checkpointed, PauseParts};
use watari_keeper::record::Phase;
use watari_types::{BridgeName, Epoch, ErrorReport, Generation, MachineId, MachineName, NodeId, SnapshotId};

use crate::doctor::Check;

pub use clone::*;
pub use console::*;
pub use core::*;
pub use depots::*;
pub use diff::*;
pub use mesh::*;
pub use restore::*;
pub use screen::*;
pub use teleport::*;

/// The media type that asks for progress lines.
pub const NDJSON: &str = "application/x-ndjson";

/// A daemon.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeInfo {
    /// The node's public key.
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// The socket the API answers on.
    #[schema(value_type = String)]
    pub api: PathBuf,
    /// The web page, with its token.
    pub web_url: String,
    /// The folder everything lies in.
    #[schema(value_type = String)]
    pub home: PathBuf,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
}

/// What was found out about a computer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Everything that was looked at: what it is, how it is, what was found, how to mend it.
    #[schema(value_type = Vec<Object>)]
    pub checks: Vec<Check>,
}

/// How a daemon is to end.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ShutdownRequest {
    /// Whether its machines end too: each is asked to power off, and killed when it has not in time.
    pub machines: bool,
}

/// A machine and what it is doing.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MachineInfo {
    /// Its name on this node.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// Its name for ever.
    #[schema(value_type = String)]
    pub id: MachineId,
    /// What it is doing: `stopped`, `suspended`, `running`, `paused` or `crashed`.
    #[schema(value_type = String)]
    pub state: Phase,
    /// Why, where that is worth saying.
    pub reason: String,
    /// The node it is on.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// The number of the snapshot its present state descends from.
    #[schema(value_type = Option<u64>)]
    pub generation: Option<Generation>,
    /// That snapshot.
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<SnapshotId>,
    /// How often it was activated.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// When it was created, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// The size of each disk.
    pub disk_bytes: Vec<u64>,
    /// Hardware addresses of its network cards.
    pub macs: Vec<String>,
    /// Of what it is a clone.
    pub origin: Option<OriginInfo>,
    /// What only a running machine has.
    pub instance: Option<InstanceInfo>,
    /// Its folder.
    #[schema(value_type = String)]
    pub folder: PathBuf,
    /// What its serial console printed.
    #[schema(value_type = String)]
    pub serial_log: PathBuf,
}

/// A running machine's processes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceInfo {
    /// Process id of the keeper.
    pub keeper_pid: u32,
    /// Process id of QEMU.
    pub qemu_pid: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `write-protect` or `compare`.
    pub tracker: String,
    /// Pages of its disks that still lie in the store only.
    pub absent_disk_pages: u64,
    /// Pages of its memory that do: the guest runs, and waits for those that it touches.
    pub absent_ram_pages: u64,
    /// The socket of its serial console.
    #[schema(value_type = String)]
    pub serial: PathBuf,
    /// The socket of its VNC server.
    #[schema(value_type = String)]
    pub vnc: PathBuf,
}

/// Of what a machine is a clone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OriginInfo {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its name at that time.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// The snapshot.
    #[schema(value_type = String)]
    pub snapshot: SnapshotId,
}

/// Every machine of the node, in alphabetical order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MachineList {
    /// The machines.
    pub machines: Vec<MachineInfo>,
}

/// What a new machine boots from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum BootRequest {
    /// The built-in demo machine.
    Demo {
        /// What follows on its kernel's command line.
        #[serde(default)]
        append: String,
    },
    /// The firmware boots the first disk.
    Disk,
    /// A Linux kernel, loaded directly.
    Kernel {
        /// The kernel's file.
        #[schema(value_type = String)]
        kernel: PathBuf,
        /// The initial ramdisk's file.
        #[schema(value_type = Option<String>)]
        initrd: Option<PathBuf>,
        /// The kernel's command line.
        #[serde(default)]
        append: String,
    },
}

/// A machine to be created. Paths are absolute: the daemon has a working folder of its own.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateRequest {
    /// Its name, checked by the daemon.
    pub name: String,
    /// What it boots from.
    pub boot: BootRequest,
    /// A raw or qcow2 image for its first disk.
    #[schema(value_type = Option<String>)]
    pub image: Option<PathBuf>,
    /// The least size of its first disk.
    pub disk_bytes: Option<u64>,
    /// Guest memory.
    pub memory_bytes: Option<u64>,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// The host's bridge that its network card is plugged into; none for a network of its own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub bridge: Option<BridgeName>,
}

/// How patient a stop is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StopRequest {
    /// How long the guest may take to power off.
    pub limit_ms: u64,
}

impl Default for StopRequest {
    fn default() -> Self {
        StopRequest { limit_ms: 60_000 }
    }
}

/// What to write beside a new snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CheckpointRequest {
    /// What to write into the history.
    pub message: String,
    /// A tag to put on the snapshot.
    pub tag: Option<String>,
}

/// What a checkpoint made and cost.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckpointInfo {
    /// The snapshot.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// How long the guest was held.
    pub pause_ms: f64,
    /// From the request until the snapshot was durable.
    pub total_ms: f64,
    /// Pages of memory whose content changed since the snapshot before.
    pub ram_pages: u64,
    /// Pages of disks whose content changed since then.
    pub disk_pages: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// Rounds of copying before the pause.
    pub rounds: u32,
    /// Where the pause went, in milliseconds.
    #[schema(value_type = Object)]
    pub pause: PauseParts,
    /// `write-protect` or `compare`.
    pub tracker: String,
}

impl From<Checkpointed> for CheckpointInfo {
    fn from(done: Checkpointed) -> Self {
        CheckpointInfo {
            id: done.id,
            generation: done.generation,
            pause_ms: done.pause_ms,
            total_ms: done.total_ms,
            ram_pages: done.ram_pages,
            disk_pages: done.disk_pages,
            stored_bytes: done.stored_bytes,
            rounds: done.rounds,
            pause: done.pause,
            tracker: done.tracker,
        }
    }
}

/// A name for a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TagRequest {
    /// The tag; the snapshot that has it loses it.
    pub tag: String,
    /// The snapshot; it must be in the machine's history.
    pub rev: String,
}

/// A tag that was given or taken away.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Tagged {
    /// The machine.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// The tag.
    pub tag: String,
    /// The snapshot that has it now, or had it.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
}

/// A snapshot that was taken out of a history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Forgotten {
    /// The machine.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// The number it had.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Which one it is.
    #[schema(value_type = String)]
    pub id: SnapshotId,
}

/// How to collect garbage.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct GcRequest {
    /// Change nothing, and say what would be removed.
    pub dry_run: bool,
}

/// What collecting garbage did, or would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GcResult {
    /// Bytes that are free now.
    pub freed_bytes: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Snapshots that policies took out of histories.
    pub snapshots_expired: u64,
    /// Snapshots that nothing needed, removed for good.
    pub snapshots_removed: u64,
    /// Packs that are gone,
    pub packs_removed: u64,
    /// and packs that hold the rest of them now.
    pub packs_written: u64,
    /// How long snapshots that were being made were waited for.
    #[serde(default)]
    pub waited_ms: u64,
    /// Whether snapshots that are being made may need some of what could be removed.
    pub is_held_back: bool,
    /// Why packs stay that were to be merged, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

/// A machine that runs, and how long that took.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// The machine.
    #[serde(flatten)]
    pub machine: MachineInfo,
    /// From the request's arrival until the guest ran, or until all was prepared if it was not to run.
    pub ready_ms: f64,
}

/// What can be done to a running machine's network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChange {
    /// Plug the cable in.
    Plug,
    /// Pull it.
    Unplug,
    /// Replace the card by one with a new address, and plug it in.
    Fresh,
}

/// A change of a network card.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworkRequest {
    /// What to do.
    pub action: NetworkChange,
}

/// A snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotInfo {
    /// Its name.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// The name its machine had.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// The snapshot it is a delta on.
    #[schema(value_type = Option<String>)]
    pub parent: Option<SnapshotId>,
    /// The machine's activation it was taken in.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// Its line of history.
    pub branch: String,
    /// When it was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What was written beside it.
    pub message: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether the machine's present state descends from it.
    pub head: bool,
    /// The node that took it.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// QEMU's version then.
    pub qemu_version: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Its regions.
    pub regions: Vec<RegionInfo>,
    /// The size of the devices' state.
    pub device_state_bytes: u64,
    /// The size of its manifest.
    pub manifest_bytes: u64,
    /// What taking it cost, if it was taken here and that is still known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub capture: Option<Cost>,
}

/// A region of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegionInfo {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How many of its pages changed since the parent.
    pub changed_pages: u64,
}

/// A machine's history, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// What of the history could not be read, a line each; `verify` finds more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// What a revision names: a snapshot and the machine in whose history it is. A machine without snapshots is
/// shown alone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Shown {
    /// The snapshot's fields.
    #[serde(flatten)]
    pub snapshot: Option<SnapshotInfo>,
    /// The machine, if it is still there.
    pub machine: Option<MachineInfo>,
}

/// What to verify.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct VerifyRequest {
    /// One machine's history, or everything.
    #[schema(value_type = Option<String>)]
    pub machine: Option<MachineName>,
    /// From where to take what is damaged.
    pub repair_from: Option<DepotRequest>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VerifyResult {
    /// Snapshots whose manifests were checked.
    pub snapshots_checked: u64,
    /// Pages whose content was hashed again.
    pub pages_checked: u64,
    /// Everything that is not as it was written; after a repair, what still is not.
    pub damaged: Vec<DamageInfo>,
    /// The snapshots that cannot be restored for it; all others can.
    pub affected: Vec<AffectedInfo>,
    /// What was had back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<RepairedInfo>,
}

/// A snapshot that cannot be restored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AffectedInfo {
    /// The name of the machine, or its id, if it is there no more.
    pub name: String,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Its id, if that is known.
    #[schema(value_type = Option<String>)]
    pub id: Option<SnapshotId>,
    /// What it lacks, or the first thing.
    pub what: String,
}

/// What was taken from a depot in place of what was damaged.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepairedInfo {
    /// Refs of snapshots.
    pub refs: u64,
    /// Snapshots' manifests.
    pub snapshots: u64,
    /// Pages.
    pub pages: u64,
    /// Packs that are not in use any more.
    pub packs: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DamageInfo {
    /// The file.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// A disk to be exported.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportRequest {
    /// The snapshot.
    pub rev: String,
    /// Which of its disks.
    #[serde(default)]
    pub disk: usize,
}

/// An export, for as long as the answer that brought it is not closed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportInfo {
    /// Where it is, in the form that NBD programs take.
    pub uri: String,
    /// The snapshot.
    #[schema(value_type = String)]
    pub snapshot: SnapshotId,
    /// The disk's size.
    pub bytes: u64,
}

/// A machine that is no more.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// What it was called.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// What its folder took.
    pub freed_bytes: u64,
}

/// An error as the API gives it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Kind, message and hint.
    #[schema(value_type = Object)]
    pub error: ErrorReport,
}
