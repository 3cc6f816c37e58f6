//! One node: its home, its store and its machines, as the daemon holds them.
//!
//! Every machine has a **slot**. Its `busy` lock is held for the whole of an operation, so that operations on
//! one machine never overlap; reading what the machine is doing takes no such lock. `live` is there while a
//! keeper runs and is followed (see [`supervise`](crate::supervise)).

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedMutexGuard, mpsc};
use watari_keeper::home::{Home, MachineHome};
use watari_keeper::protocol::Progress;
use watari_keeper::record::{MachineFile, MachineState, Phase};
use watari_mesh::Mesh;
use watari_qemu::{Qemu, QemuFinder};
use watari_store::{NodeKey, Store};
use watari_types::{MachineName, NodeId};

use crate::api::{InstanceInfo, MachineInfo, OriginInfo};
use crate::consoles::Consoles;
use crate::gc::Pins;
use crate::mesh::Visit;
use crate::screens::Screens;
use crate::supervise::Live;
use crate::teleport::{Borrowers, Comings, Tenures};
use crate::{Error, Result};

/// Where long work says how far it is.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The home's folder, created if missing.
    pub home: PathBuf,
    /// Where memory heads lie: a tmpfs, normally `/dev/shm`.
    pub tmpfs: PathBuf,
    /// Where to look for programs, in the form of `$PATH`.
    pub search_path: OsString,
    /// The web page's port on 127.0.0.1; 0 for any that is free.
    pub port: u16,
}

/// One node. Its methods block; the server calls them off the async threads.
pub(crate) struct Node {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) pins: Pins,
    /// Held while garbage is collected, so that whoever wants it meanwhile waits.
    pub(crate) collecting: Mutex<()>,
    /// Held while it is written down who is trusted.
    pub(crate) trusting: Mutex<()>,
    pub(crate) id: NodeId,
    /// The mesh, if the node is in one.
    pub(crate) mesh: Mutex<Option<Mesh>>,
    /// Held while one is begun, joined or left.
    pub(crate) joining: Mutex<()>,
    pub(crate) tenures: Tenures,
    pub(crate) coming: Comings,
    pub(crate) borrowers: Borrowers,
    /// The machines of which everything is just being sent after them.
    pub(crate) sending_lent: Mutex<BTreeSet<MachineName>>,
    pub(crate) options: Options,
    pub(crate) screens: Screens,
    pub(crate) consoles: Consoles,
    /// Where those come in who watch machines from other nodes, once they are answered.
    pub(crate) visits: OnceLock<mpsc::Sender<Visit>>,
    /// Held while the accelerator is probed, so that it is probed once.
    pub(crate) probing: Mutex<()>,
    finder: QemuFinder,
    slots: Mutex<HashMap<MachineName, Arc<Slot>>>,
    /// Whether everything is to end, so that nothing may start.
    closing: AtomicBool,
}

#[derive(Default)]
struct Slot {
    busy: Arc<tokio::sync::Mutex<()>>,
    live: Mutex<Option<Arc<Live>>>,
}

/// What a machine is doing.
pub(crate) struct Doing {
    pub(crate) phase: Phase,
    /// Why.
    pub(crate) reason: String,
    /// Whether a keeper runs and is followed.
    pub(crate) is_live: bool,
}

/// The right to change one machine.
pub(crate) type Busy = OwnedMutexGuard<()>;

impl Node {
    pub(crate) fn open(home: Home, options: Options) -> Result<Node> {
        let store = Store::open(&home.store())?;
        let id = NodeKey::load_or_create(&home.node_key())?.id();
        let finder = QemuFinder::new(options.search_path.clone());
        Ok(Node {
            home,
            store,
            pins: Pins::default(),
            collecting: Mutex::new(()),
            trusting: Mutex::new(()),
            id,
            mesh: Mutex::default(),
            joining: Mutex::new(()),
            tenures: Tenures::default(),
            coming: Comings::default(),
            borrowers: Borrowers::default(),
            sending_lent: Mutex::default(),
            screens: Screens::default(),
            consoles: Consoles::default(),
            visits: OnceLock::new(),
            options,
            probing: Mutex::new(()),
            finder,
            slots: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Waits until no operation on the machine is under way, and keeps others from starting.
    pub(crate) async fn lock(&self, name: &MachineName) -> Busy {
        let busy = self.slot(name).busy.clone();
        busy.lock_owned().await
    }

    /// Like [`Self::lock`], for a thread that may block.
    pub(crate) fn blocking_lock(&self, name: &MachineName) -> Busy {
        self.slot(name).busy.clone().blocking_lock_owned()
    }

    /// The machine's keeper, if one runs and is followed.
    pub(crate) fn live(&self, name: &MachineName) -> Option<Arc<Live>> {
        hold(&self.slot(name).live).clone()
    }

    /// What the machine is doing, also if it is gone.
    pub(crate) fn doing(&self, name: &MachineName) -> Doing {
        if let Some(live) = self.live(name) {
            let status = live.status();
            return Doing { phase: status.phase, reason: status.reason, is_live: true };
        }
        let (phase, reason) = match MachineState::load(&self.home.machine(name)) {
            Ok(state) => (state.phase, state.reason),
            Err(_) => (Phase::Stopped, "there is no such machine here any more".to_owned()),
        };
        Doing { phase, reason, is_live: false }
    }

    pub(crate) fn set_live(&self, name: &MachineName, live: Arc<Live>) {
        *hold(&self.slot(name).live) = Some(live);
    }

    /// The machines whose keepers are followed.
    pub(crate) fn followed(&self) -> Vec<MachineName> {
        let slots = hold(&self.slots);
        slots.iter().filter(|(_, slot)| hold(&slot.live).is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// Says whether machines may still start. A start that was let through holds its machine's lock.
    pub(crate) fn set_closing(&self, closing: bool) {
        self.closing.store(closing, Ordering::SeqCst);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Forgets a keeper that ended, unless another has taken its place.
    pub(crate) fn clear_live(&self, name: &MachineName, ended: &Arc<Live>) {
        let slot = self.slot(name);
        let mut live = hold(&slot.live);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, ended)) {
            *live = None;
        }
    }

    fn slot(&self, name: &MachineName) -> Arc<Slot> {
        hold(&self.slots).entry(name.clone()).or_default().clone()
    }

    /// The QEMU to run machines with.
    pub(crate) fn qemu(&self) -> Result<Qemu> {
        Ok(self.finder.find()?)
    }

    /// A machine's folders and its `machine.toml`.
    pub(crate) fn machine(&self, name: &MachineName) -> Result<(MachineHome, MachineFile)> {
        let home = self.home.machine(name);
        if !home.config().exists() {
            return Err(Error::UnknownMachine(name.clone()));
        }
        let file = MachineFile::load(&home)?;
        Ok((home, file))
    }

    /// A machine and what it is doing.
    pub(crate) fn info(&self, name: &MachineName) -> Result<MachineInfo> {
        let (home, file) = self.machine(name)?;
        let state = MachineState::load(&home)?;
        let status = self.live(name).map(|live| live.status());
        let config = file.config;
        Ok(MachineInfo {
            id: config.id,
            state: status.as_ref().map_or(state.phase, |s| s.phase),
            reason: status.as_ref().map_or(state.reason, |s| s.reason.clone()),
            node: self.runs_at(config.id).unwrap_or(self.id),
            generation: state.base.map(|base| base.generation),
            snapshot: state.base.map(|base| base.id),
            epoch: self.epoch_of(config.id, state.epoch),
            created_unix_ms: file.created_unix_ms,
            memory_bytes: config.memory_bytes,
            cpus: config.cpus,
            disk_bytes: config.disks.iter().map(|disk| disk.bytes).collect(),
            macs: config.nics.into_iter().map(|nic| nic.mac).collect(),
            origin: file.origin.map(|origin| OriginInfo {
                machine: origin.machine,
                name: origin.name,
                snapshot: origin.snapshot,
            }),
            instance: status.map(|status| InstanceInfo {
                keeper_pid: status.keeper_pid,
                qemu_pid: status.qemu_pid,
                accelerator: status.accelerator,
                tracker: status.tracker,
                absent_disk_pages: status.absent_disk_pages,
                absent_ram_pages: status.absent_ram_pages,
                serial: home.socket("serial"),
                vnc: home.socket("vnc"),
            }),
            folder: home.folder().to_owned(),
            serial_log: home.log("serial"),
            name: file.name,
        })
    }

    /// Every machine whose files can be read, in alphabetical order.
    pub(crate) fn list(&self) -> Result<Vec<MachineInfo>> {
        let mut machines = Vec::new();
        for name in self.home.machine_names()? {
            match self.info(&name) {
                Ok(info) => machines.push(info),
                Err(Error::UnknownMachine(_)) => {}
                Err(error) => tracing::warn!(%name, error = &error as &dyn std::error::Error, "unreadable"),
            }
        }
        Ok(machines)
    }

    /// Removes memory heads that no machine maps any more.
    pub(crate) fn sweep_heads(&self) {
        match watari_keeper::heads::sweep(&self.home) {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "removed unused memory heads"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "memory heads not swept"),
        }
    }
}

/// Takes a lock whose data is whole between any two statements, so that a panic elsewhere does not matter.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
