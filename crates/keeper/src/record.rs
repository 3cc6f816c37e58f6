//! What is written down about a machine: `machine.toml` (what it is) and `state.json` (what it is doing).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use watari_store::Origin;
use watari_types::{BridgeName, Epoch, Generation, MachineConfig, MachineName, Retention, SnapshotId};

use crate::home::MachineHome;
use crate::{Error, Result};

/// `machine.toml`: identity and configuration, written at creation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineFile {
    /// The machine's name on this node.
    pub name: MachineName,
    /// When it was created, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Of what it is a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The bridge of the host's that its network cards are plugged into. Without one they are in a network of QEMU's own, from
    /// which the guest reaches others and nobody reaches the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeName>,
    /// Which of its snapshots are kept.
    #[serde(default, skip_serializing_if = "Retention::is_empty")]
    pub retention: Retention,
    /// What it is made of.
    pub config: MachineConfig,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Powered off: `start` boots it from its disk.
    Stopped,
    /// Not running, but its memory is in a snapshot: `start` resumes it.
    Suspended,
    /// Its guest runs.
    Running,
    /// Its guest is held: by `pause`, or by an I/O error such as a full disk.
    Paused,
    /// Its keeper or QEMU died: `restore` brings it back.
    Crashed,
}

/// A point of a machine's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its number in the machine's history.
    pub generation: Generation,
    /// Its name.
    pub id: SnapshotId,
}

/// What to do with the network card when a machine is resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkStart {
    /// As it was when the snapshot was taken.
    #[default]
    Same,
    /// With the cable plugged in, however it was then.
    Plugged,
    /// With the cable pulled.
    Unplugged,
    /// With a new card at the address given in the configuration.
    Fresh,
}

/// `state.json`: what the machine is doing. The keeper writes it while there is one, the daemon otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// What the machine is doing.
    pub phase: Phase,
    /// Why, where that is worth saying: how it died, who stopped it, what its disk waits for.
    #[serde(default)]
    pub reason: String,
    /// How often it was activated.
    pub epoch: Epoch,
    /// The snapshot its present state descends from.
    pub base: Option<Point>,
    /// The snapshot `start` resumes, for a suspended machine.
    #[serde(default)]
    pub resume_from: Option<SnapshotId>,
    /// What happens to its network at that start.
    #[serde(default)]
    pub network: NetworkStart,
}

impl MachineState {
    /// A machine that was just created.
    pub fn new() -> Self {
        MachineState {
            phase: Phase::Stopped,
            reason: String::new(),
            epoch: Epoch(0),
            base: None,
            resume_from: None,
            network: NetworkStart::Same,
        }
    }
}

impl Default for MachineState {
    fn default() -> Self {
        Self::new()
    }
}

impl MachineFile {
    /// Reads a machine's `machine.toml`.
    pub fn load(home: &MachineHome) -> Result<MachineFile> {
        let path = home.config();
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        toml::from_str(&text).map_err(|source| Error::BadToml { path, source: Box::new(source) })
    }

    /// Writes `machine.toml` durably. The machine exists from then on.
    pub fn save(&self, home: &MachineHome) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        write_durably(&home.config(), text.as_bytes())
    }
}

impl MachineState {
    /// Reads a machine's `state.json`.
    pub fn load(home: &MachineHome) -> Result<MachineState> {
        load_json(&home.state())
    }

    /// Writes `state.json` durably.
    pub fn save(&self, home: &MachineHome) -> Result<()> {
        save_json(&home.state(), self)
    }
}

/// Reads a JSON file.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::BadJson { path: path.to_owned(), source })
}

/// Writes a JSON file durably: whole before or whole after, never between.
pub fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    write_durably(path, &text)
}

/// Replaces `path` by a file with `bytes`: write, fsync, rename, fsync the folder.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(Error::io("write", path))
}
