//! One run of a machine: a QEMU process, its RAM under observation, its disks, its place in the history.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use watari_disk::{DeferredFlushes, Disk, Hydration, Sealed, nbd};
use watari_qemu::{Accel, Agent, Display, Monitor, RunState, STATE_PATH};
use watari_ram::RemoteFd;
use watari_store::{NodeKey, Regions};
use watari_types::{Epoch, PageSet, SnapshotId};

use crate::arrival::Arrival;
use crate::hands::Hands;
use crate::history::History;
use crate::home::MachineHome;
use crate::memory::GuestMemory;
use crate::migrate::Debt;
use crate::protocol::NetworkAction;
use crate::ram::{self, Ram};
use crate::record::{MachineFile, MachineState, Phase, Point, save_json};
use crate::staging::Staging;
use crate::status::Board;
use crate::{Error, Result};

/// How long a guest agent may take for anything.
const AGENT_LIMIT: Duration = Duration::from_secs(3);
/// How long a guest may take to let go of a network card.
const REPLACE_LIMIT: Duration = Duration::from_secs(10);
/// Pages that are released while the guest stands still once: 256 MiB.
const RELEASED_AT_ONCE: u32 = 1 << 16;

/// A running machine. Whoever holds the instance is the only one who changes it.
pub(crate) struct Instance {
    pub(crate) home: MachineHome,
    pub(crate) file: MachineFile,
    pub(crate) key: NodeKey,
    pub(crate) history: History,
    pub(crate) monitor: Monitor,
    pub(crate) hands: Hands,
    pub(crate) ram: Ram,
    /// Memory that is still being filled.
    pub(crate) arrival: Option<Arrival>,
    /// What it owes to the node that it came from.
    pub(crate) debt: Option<Debt>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) staging: Staging,
    pub(crate) board: Board,
    pub(crate) record: InstanceRecord,
    /// Where QEMU writes device state; the same memfd as QEMU's [`STATE_PATH`].
    pub(crate) state_file: File,
    /// The memory's file, and with it a shared head's lock.
    pub(crate) memory: GuestMemory,
    /// Dropped in this order: the background work before the server, the server before the disks.
    pub(crate) hydrations: Vec<Hydration>,
    pub(crate) _disk_server: nbd::Server,
}

/// What another keeper needs to take the machine over when this one dies: `run/NAME/instance.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    /// Process id of QEMU.
    pub qemu_pid: u32,
    /// When that process started, in clock ticks since boot: proc(5), `/proc/PID/stat`, field 22.
    pub qemu_started: u64,
    /// The userfaultfd's number in QEMU.
    pub uffd: Option<RemoteFd>,
    /// Whether main memory is a private mapping of a shared head.
    pub private_memory: bool,
    /// How the guest's CPUs run.
    pub accel: Accel,
    /// QEMU's version.
    pub qemu_version: String,
    /// Whether the guest has run. A QEMU whose keeper died before that cannot be taken over.
    pub ready: bool,
    /// Whether a person paused the guest.
    pub held: bool,
    /// Whether a debugger may stop and continue the guest.
    #[serde(default)]
    pub gdb: bool,
    /// How it is asked what it shows.
    #[serde(default)]
    pub display: Display,
    /// What its memory is still being filled with.
    #[serde(default)]
    pub arriving: Option<ArrivingMemory>,
    /// Which activation of the machine this is.
    pub epoch: Epoch,
}

/// Main memory that is on its way, and where it is in QEMU: the monitor cannot be asked while QEMU waits for a page.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ArrivingMemory {
    /// The snapshot that it comes from.
    pub snapshot: SnapshotId,
    /// Its first address.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

impl Instance {
    /// Whether the guest is meant to run, and does.
    pub(crate) fn is_running(&self) -> bool {
        self.board.phase() == Phase::Running
    }

    /// The state of everything but RAM and disks, as QEMU saves it.
    pub(crate) fn save_devices(&mut self) -> Result<Vec<u8>> {
        self.monitor.save_devices(Path::new(STATE_PATH))?;
        read_all(&self.state_file).map_err(|source| Error::DeviceState { source })
    }

    /// What is in no snapshot as far as known without a scan: of each disk, and of each RAM block. A capture that failed, or a
    /// keeper that died, left pages behind that no scan will report again.
    pub(crate) fn unpublished(&self) -> (Vec<PageSet>, Vec<PageSet>) {
        (self.disks.iter().map(Disk::pending).collect(), self.ram.unpublished())
    }

    /// Adds what was written since the last scan.
    pub(crate) fn scan_into(&mut self, disks: &mut [PageSet], ram: &mut [PageSet]) -> Result<()> {
        for (set, disk) in disks.iter_mut().zip(&self.disks) {
            set.union_with(&disk.scan());
        }
        for (set, new) in ram.iter_mut().zip(self.ram.scan()?) {
            set.union_with(&new);
        }
        Ok(())
    }

    /// Moves on to a snapshot that was just published: nothing up to its instant is unpublished any more.
    pub(crate) fn published(&mut self, point: Point, regions: Regions, sealed: Vec<Sealed>) -> Result<()> {
        self.ram.published();
        for (disk, sealed) in self.disks.iter().zip(sealed) {
            disk.published(sealed, point.generation);
        }
        self.history.advance(point, regions)?;
        self.board.set_generation(point.generation);
        self.save_state()
    }

    /// All of memory has arrived: from now on nobody waits for any page of it. The guest stands still for some milliseconds
    /// for each part, as what protects its pages is lost by that and set up anew.
    pub(crate) fn memory_has_arrived(&mut self) -> Result<()> {
        let Some(arrival) = self.arrival.take() else { return Ok(()) };
        if let Err(error) = self.release(&arrival) {
            self.arrival = Some(arrival);
            return Err(error);
        }
        self.ram.arriving(None);
        self.board.memory_has_arrived();
        self.record.arriving = None;
        save_json(&self.home.instance(), &self.record)?;
        let _ = fs::remove_file(self.home.arrived());
        Ok(())
    }

    fn release(&mut self, arrival: &Arrival) -> Result<()> {
        let main = ram::main_memory(self.ram.ranges())?;
        let end = self.ram.ranges()[main].pages();
        for start in (0..end).step_by(RELEASED_AT_ONCE as usize) {
            let pages = start..end.min(start.saturating_add(RELEASED_AT_ONCE));
            let began = Instant::now();
            self.while_held(|instance| instance.ram.release(main, pages, arrival))?;
            tracing::debug!(from = start, held = ?began.elapsed(), "a part of memory is there");
        }
        Ok(())
    }

    /// Does something while the guest stands still.
    fn while_held<T>(&mut self, work: impl FnOnce(&mut Instance) -> Result<T>) -> Result<T> {
        if !self.is_running() {
            return work(self);
        }
        for disk in &self.disks {
            disk.flush().map_err(Error::disk("flush"))?;
        }
        let flushes: Vec<DeferredFlushes> = self.disks.iter().map(Disk::defer_flushes).collect();
        let hands = self.hands.clone();
        let _still = hands.still();
        let done = self.monitor.stop().map_err(Error::from).and_then(|()| work(self));
        let redeemed =
            flushes.into_iter().try_for_each(DeferredFlushes::redeem).map_err(Error::disk("flush"));
        self.monitor.cont()?;
        redeemed?;
        done
    }

    /// Holds the guest, because a person asked for it. After an error it runs as before.
    pub(crate) fn pause(&mut self) -> Result<()> {
        let (phase, reason) = self.board.phase_and_reason();
        if phase != Phase::Running {
            return Ok(());
        }
        self.hands.let_go();
        self.monitor.stop()?;
        self.note(Phase::Paused, "paused").inspect_err(|_| {
            if let Err(error) = self.monitor.cont() {
                tracing::error!(error = &error as &dyn std::error::Error, "the guest stays held");
            }
            self.put_back(Phase::Running, &reason);
        })
    }

    /// Notes that the guest, which is held already, is to stay so.
    pub(crate) fn stays_held(&mut self, reason: &str) -> Result<()> {
        let before = self.board.phase_and_reason();
        self.note(Phase::Paused, reason).inspect_err(|_| self.put_back(before.0, &before.1))
    }

    /// Lets a held guest go on; whether it was held. After an error it is as before.
    pub(crate) fn resume(&mut self) -> Result<bool> {
        let (phase, reason) = self.board.phase_and_reason();
        if phase != Phase::Paused {
            return Ok(false);
        }
        // Noted first: its disk may have it held again before `cont` has answered.
        let noted = self.note(Phase::Running, &self.whole_so_far());
        let went_on = noted.and_then(|()| Ok(self.monitor.cont()?));
        if went_on.is_ok()
            && self.file.bridge.is_some()
            && let Err(error) = self.monitor.announce()
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the network is not told where the guest is"
            );
        }
        went_on.map(|()| true).inspect_err(|_| self.put_back(Phase::Paused, &reason))
    }

    /// Where the rest of a machine is that is not whole yet; nothing if it is.
    fn whole_so_far(&self) -> String {
        if self.debt.is_none() {
            return String::new();
        }
        let back = match self.history.base_snapshot() {
            Some(snapshot) => {
                let before = now_unix_ms().saturating_sub(snapshot.draft.created_unix_ms) / 1000;
                format!(
                    "the last that is whole here is {}, {before} s before it came",
                    snapshot.draft.generation
                )
            }
            None => "no snapshot of it is here".to_owned(),
        };
        format!("still takes what it holds from the node that it came from; {back}")
    }

    /// Refuses what cannot be done with a machine that is not whole.
    pub(crate) fn ensure_whole(&self) -> Result<()> {
        match &self.debt {
            Some(debt) => Err(Error::NotWhole { generation: debt.loan.generation }),
            None => Ok(()),
        }
    }

    /// Notes what a debugger has done to the guest. Whoever holds the instance is in the middle of nothing, so that a guest
    /// that stands still does so because of the debugger.
    pub(crate) fn follow_debugger(&mut self) {
        if !self.record.gdb {
            return;
        }
        let (phase, reason) = match (self.board.phase(), self.monitor.status()) {
            (Phase::Paused, Ok(RunState::Running)) => (Phase::Running, ""),
            (Phase::Running, Ok(state)) if state != RunState::Running => {
                (Phase::Paused, "stopped by the debugger")
            }
            _ => return,
        };
        self.put_back(phase, reason);
    }

    fn note(&mut self, phase: Phase, reason: &str) -> Result<()> {
        self.record.held = phase == Phase::Paused;
        self.board.set(phase, reason);
        save_json(&self.home.instance(), &self.record)?;
        self.save_state()
    }

    fn put_back(&mut self, phase: Phase, reason: &str) {
        if let Err(error) = self.note(phase, reason) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot put down what the machine is doing"
            );
        }
    }

    /// Writes `state.json`.
    pub(crate) fn save_state(&self) -> Result<()> {
        let (phase, reason) = self.board.phase_and_reason();
        self.state(phase, reason).save(&self.home)
    }

    /// What `state.json` is to say.
    pub(crate) fn state(&self, phase: Phase, reason: String) -> MachineState {
        MachineState {
            phase,
            reason,
            epoch: self.record.epoch,
            base: self.history.base(),
            resume_from: None,
            network: Default::default(),
        }
    }

    /// Asks the guest to power off: through its agent where there is one, else by the power button.
    pub(crate) fn ask_to_power_off(&self) -> Result<()> {
        let by_agent = agent(&self.home).and_then(|mut agent| agent.shutdown(AGENT_LIMIT));
        if let Err(error) = by_agent {
            tracing::info!(%error, "no guest agent: pressing the power button");
        }
        // Both, because an agent may accept and then be held up by what it runs in.
        Ok(self.monitor.powerdown()?)
    }

    /// Plugs, unplugs or replaces the first network card.
    pub(crate) fn network(&mut self, action: &NetworkAction) -> Result<()> {
        if self.file.config.nics.is_empty() {
            return Err(Error::NoNic);
        }
        match action {
            NetworkAction::Plug => self.monitor.set_link(0, true)?,
            NetworkAction::Unplug => self.monitor.set_link(0, false)?,
            NetworkAction::Replace { mac } => {
                self.monitor.replace_nic(0, mac, REPLACE_LIMIT)?;
                self.monitor.set_link(0, true)?;
                self.file.config.nics[0].mac.clone_from(mac);
                self.file.save(&self.home)?;
            }
        }
        Ok(())
    }

    /// The screen as a PNG file; whoever asked removes it.
    pub(crate) fn screenshot(&self) -> Result<PathBuf> {
        let path = self.home.run().join("screen.png");
        self.monitor.screendump(&path)?;
        Ok(path)
    }
}

/// Tells the guest what time it is, where an agent listens. A guest without one keeps its old time until it
/// synchronises by itself. Takes seconds to find that there is none, so it does not take the instance.
pub(crate) fn set_clock(home: &MachineHome) {
    match agent(home).and_then(|mut agent| agent.set_time(SystemTime::now(), AGENT_LIMIT)) {
        Ok(()) => tracing::info!("the guest's clock is set"),
        Err(error) => tracing::info!(%error, "the guest's clock could not be set: no agent answers"),
    }
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn agent(home: &MachineHome) -> Result<Agent, watari_qemu::Error> {
    Agent::connect(&home.socket(watari_qemu::AGENT_SOCKET), Instant::now() + AGENT_LIMIT)
}

/// Reads a whole file without moving its offset.
fn read_all(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
