//! What the daemon and a keeper say to each other: lines of JSON on the keeper's socket.
//!
//! A connection carries one [`Request`] and its [`Reply`] lines: any number of `progress`, then one `done` or
//! `error`. [`Request::Watch`] is an exception: it never ends by itself, and its `progress` lines are the
//! machine's state whenever that changes; [`Request::Lend`], [`Request::Screen`] and [`Request::Touch`] are others, which go on
//! otherwise. The end of a watch without a `done` line means that the keeper died.
//!
//! A keeper that was just started says on its standard output, in the same lines, how its start went: the
//! `done` line holds a [`Started`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use watari_types::{ErrorReport, Generation, MachineName, NodeId, SnapshotId};

use crate::record::{NetworkStart, Phase, Point};

/// How a keeper brings its machine to life. Given as JSON on the command line: `watari keeper HOME TMPFS NAME START DISPLAY`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Start {
    /// Power on: boot from disk or kernel.
    Boot {
        /// Whether the guest is held before its first instruction.
        held: bool,
    },
    /// Continue from a snapshot's memory, devices and disks.
    Resume {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its number in this machine's history.
        generation: Generation,
        /// What becomes of the network card.
        network: NetworkStart,
        /// Where its memory comes from.
        memory: MemoryFrom,
        /// Whether it is held before its first step,
        held: bool,
        /// with a socket for a debugger.
        gdb: bool,
    },
    /// Be ready at a snapshot for what another keeper sends over a socket, this one's standard input: all that differs from
    /// that, and the devices. The guest is held before its first step.
    Receive {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Its number in this machine's history.
        generation: Generation,
    },
    /// Like that, but what the machine holds stays where it is until it is needed, but for what a snapshot here has of it.
    Borrow {
        /// That snapshot.
        base: Option<Point>,
        /// Where the rest is.
        from: NodeId,
    },
    /// Take over a QEMU whose keeper died.
    Adopt,
}

/// Where the memory of a resumed machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryFrom {
    /// Memory of the machine's own, filled from the store.
    Store,
    /// A head that clones of the snapshot share, mapped copy-on-write.
    Head,
    /// Memory left by a run that was given up for the snapshot, the keeper's standard input. It holds nothing else: pages that
    /// are not there come from the store.
    StandardInput,
}

/// How the start of a keeper went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Process id of QEMU.
    pub qemu_pid: u32,
    /// From the keeper's start until the guest ran.
    pub ready_ms: f64,
}

/// What a keeper can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Request {
    /// What are you doing? → [`Status`].
    Status,
    /// Tell me whenever that changes. → `progress` lines with a [`Status`].
    Watch,
    /// Capture the machine while it runs. → [`Checkpointed`].
    Checkpoint {
        /// What to write into the history.
        #[serde(default)]
        message: String,
        /// A tag to put on the snapshot.
        #[serde(default)]
        tag: Option<String>,
    },
    /// Hold the guest. → [`Status`].
    Pause,
    /// Let it go on. → [`Status`].
    Resume,
    /// Ask the guest to power off and wait. → [`Status`]; error `WrongState` if it has not within the limit.
    Stop {
        /// How long to wait.
        limit_ms: u64,
    },
    /// End QEMU at once. → [`Status`].
    Kill,
    /// End QEMU for a restore of a snapshot, after a check that all of it is there. → [`GivenUp`]. After an error
    /// the machine runs on.
    GiveUp {
        /// What is to be restored.
        snapshot: SnapshotId,
        /// What the machine leaves behind becomes a snapshot, with this message.
        keep: Option<String>,
    },
    /// Send a keeper that has the newest snapshot what differs from that, while the guest runs, and hold it for the last of
    /// it. → [`Migrated`]. It stays held; after an error it runs on.
    Migrate {
        /// Where somebody listens who passes on what is said.
        socket: PathBuf,
    },
    /// Send a keeper what it takes for the guest to go on there, and hold it here. → [`Migrated`]. What it holds is lent; after
    /// an error it runs on.
    LeaveFirst {
        /// Where somebody listens who passes on what is said.
        socket: PathBuf,
        /// What is there.
        lending: Lending,
    },
    /// Give what a held guest has to whoever asks: after the reply, in frames of its own.
    Lend,
    /// What a machine was lent is here, as this snapshot. → [`Status`].
    Repay {
        /// The snapshot.
        snapshot: Point,
    },
    /// Show me the machine's screen. → [`Display`](watari_qemu::Display): with `dbus` the connection is one with QEMU's display
    /// from then on, with `vnc` it is at an end and QEMU listens at the socket `vnc`.
    Screen,
    /// Let me use the machine's keyboard and pointer: after the reply, lines with an [`Input`](watari_qemu::Input) each, and for
    /// each a `done` or an `error` once it was done or could not be.
    Touch,
    /// The screen as a PNG file. → `{"path": …}`, to be removed by the reader.
    Screenshot,
    /// Plug, unplug or replace the network card. → [`Status`].
    Network {
        /// What to do.
        action: NetworkAction,
    },
}

/// What a node has of a machine that is to come before its content does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lending {
    /// A snapshot that it descends from.
    pub base: Option<SnapshotId>,
    /// Whether it lacks the files that the machine boots from.
    pub boot: bool,
}

/// What can be done to a network card while the guest runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAction {
    /// Plug the cable in.
    Plug,
    /// Pull it.
    Unplug,
    /// Replace the card by one with this hardware address, and plug it in.
    Replace {
        /// `52:54:00:xx:xx:xx`
        mac: String,
    },
}

/// One line from a keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The work goes on.
    Progress(serde_json::Value),
    /// The work is done; nothing follows.
    Done(serde_json::Value),
    /// The work failed; nothing follows.
    Error(ErrorReport),
}

/// How far long work is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in a few words.
    pub step: String,
    /// Done so far, in the unit of `total`.
    pub done: u64,
    /// All there is to do; 0 if not known.
    pub total: u64,
}

/// What a keeper's machine is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The machine.
    pub name: MachineName,
    /// What it is doing.
    pub phase: Phase,
    /// Why, where that is worth saying.
    #[serde(default)]
    pub reason: String,
    /// Its last snapshot.
    pub generation: Option<Generation>,
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
    /// Pages of its memory that do.
    #[serde(default)]
    pub absent_ram_pages: u64,
}

/// What is left of a machine that was ended for its restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Whether what QEMU's main memory ([`memory_of`](crate::memory_of)) holds is what the snapshot does; not all of that need
    /// be there.
    pub memory_is_ready: bool,
    /// The snapshot that keeps what the machine left behind, if it was to be kept.
    pub kept: Option<Point>,
}

/// What was sent to another keeper.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migrated {
    /// Pages, those counted several times that were sent again.
    pub pages: u64,
    /// Bytes that these took.
    pub bytes: u64,
    /// Rounds before the pause.
    pub rounds: u32,
    /// From the moment the guest was held until everything was sent.
    pub pause_ms: f64,
}

/// What a checkpoint did and cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpointed {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its number in the machine's history.
    pub generation: Generation,
    /// How long the guest was held.
    pub pause_ms: f64,
    /// From the request until the snapshot was durable.
    pub total_ms: f64,
    /// Pages of RAM blocks whose content changed since the snapshot before.
    pub ram_pages: u64,
    /// Pages of disks whose content changed since then.
    pub disk_pages: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// Rounds of copying before the pause.
    pub rounds: u32,
    /// Where the pause went.
    pub pause: PauseParts,
    /// `write-protect` or `compare`.
    pub tracker: String,
}

/// The pause, step by step, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PauseParts {
    /// QEMU's `stop`.
    pub stop_ms: f64,
    /// Sealing the disks.
    pub seal_ms: f64,
    /// Asking the kernel which pages were written.
    pub scan_ms: f64,
    /// Copying them.
    pub copy_ms: f64,
    /// Saving the devices.
    pub devices_ms: f64,
    /// Waiting for flushes that were answered during the pause.
    pub flush_ms: f64,
    /// QEMU's `cont`.
    pub cont_ms: f64,
    /// Pages copied during the pause.
    pub pages: u64,
}
