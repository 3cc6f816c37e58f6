//! How an instance comes to life: powered on, resumed from a snapshot, or taken over from a dead keeper.
//!
//! ```text
//!  boot     disks → disk server → empty memory ─→ QEMU ─────────────→ arm ──────────────────→ cont
//!  resume   history → disks → disk server → memory filled ┬→ small blocks → arm → devices → cont
//!           QEMU (incoming) ──────────────────────────────┘
//!  adopt    disks → disk server → QEMU runs already: its monitor, its memory, its userfaultfd → arm
//! ```
//!
//! A machine's lock is held from before the first step. Until `cont` a failure ends QEMU and leaves the machine
//! as it was, except that a resume has replaced its disks and its head: the machine stands at the snapshot then.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use watari_disk::{Disk, nbd};
use watari_qemu::{QMP_SOCKET, RAM_BLOCK_MAIN, STATE_PATH};
use watari_types::RegionName;

use crate::ground::{Ground, Newborn, connect_monitor, fill_small_blocks, open_in, write_all};
use crate::heads;
use crate::history::History;
use crate::instance::{Instance, InstanceRecord};
use crate::memory::GuestMemory;
use crate::process::{kill_if_same, process_started};
use crate::protocol::{MemoryFrom, NetworkAction, Start};
use crate::ram::Ram;
use crate::record::{NetworkStart, Point, load_json};
use crate::{Error, Result};

/// How long QEMU may take to load the devices.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// A snapshot, ready to be resumed.
struct Loaded {
    history: History,
    devices: Vec<u8>,
    disks: Vec<Disk>,
    server: nbd::Server,
}

impl Ground {
    /// Brings the machine to life. Returns it with its QEMU if that is our child.
    pub(crate) fn start(self, how: &Start) -> Result<(Instance, Option<Child>)> {
        match how {
            Start::Boot { held } => self.boot(*held),
            Start::Resume { snapshot, generation, network, memory, gdb } => {
                let point = Point { generation: *generation, id: *snapshot };
                self.resume(point, network, *memory, *gdb)
            }
            Start::Adopt => self.adopt(),
        }
    }

    fn boot(self, held: bool) -> Result<(Instance, Option<Child>)> {
        let history = self.history()?;
        let disks = self.open_disks(&history)?;
        let server = self.serve(self.listen()?, &disks)?;
        let memory = GuestMemory::new(self.file.config.memory_bytes)?;
        let mut newborn = self.spawn(&memory, false, false)?;
        newborn.record.held = held;
        let started = (|| {
            let mut ram = self.arm(&newborn.record, &newborn.monitor.ram_blocks()?, &memory)?;
            self.distrust(&mut ram, &history, &memory)?;
            ram.settle();
            newborn.set_going()?;
            Ok(ram)
        })();
        let ram = newborn.keep(started, &self.home)?;
        self.finish(newborn, history, disks, server, memory, ram)
    }

    fn resume(
        self,
        point: Point,
        network: &NetworkStart,
        memory: MemoryFrom,
        gdb: bool,
    ) -> Result<(Instance, Option<Child>)> {
        let is_filled = memory != MemoryFrom::Store;
        let memory = self.memory_for(point, memory)?;
        let listener = self.listen()?;
        // QEMU takes as long to start as its state takes to be read, and needs none of it for that: it waits at
        // the disk socket meanwhile. Should there be nothing to wait for, the socket is closed and QEMU gives up.
        let (snapshot, newborn) = std::thread::scope(|scope| {
            let newborn = scope.spawn(|| self.spawn(&memory, true, gdb));
            let snapshot = self.load(point, listener, (!is_filled).then_some(&memory));
            let newborn =
                newborn.join().unwrap_or_else(|_| Err(Error::Internal("starting QEMU panicked".into())));
            (snapshot, newborn)
        });
        let (snapshot, mut newborn) = match (snapshot, newborn) {
            (Ok(snapshot), newborn) => (snapshot, newborn?),
            (Err(error), Ok(mut newborn)) => return newborn.keep(Err(error), &self.home),
            (Err(error), Err(_)) => return Err(error),
        };
        newborn.record.held = gdb;
        let Loaded { history, devices, disks, server } = snapshot;
        let started = (|| {
            let ram = self.load_into(&newborn, &history, &devices, &memory)?;
            self.before_first_step(&newborn.monitor, network)?;
            if gdb {
                newborn.monitor.activate_disks()?;
            }
            newborn.set_going()?;
            Ok(ram)
        })();
        let ram = newborn.keep(started, &self.home)?;
        let fresh = self.file.config.nics.first().map(|nic| nic.mac.clone());
        let (mut instance, child) = self.finish(newborn, history, disks, server, memory, ram)?;
        if let (NetworkStart::Fresh, Some(mac)) = (network, fresh) {
            instance.network(&NetworkAction::Replace { mac })?;
        }
        Ok((instance, child))
    }

    /// Gives a QEMU whose main memory is filled the rest of what the snapshot holds, its devices last. What loading these
    /// changes in memory is the first that is tracked.
    pub(crate) fn load_into(
        &self,
        newborn: &Newborn,
        history: &History,
        devices: &[u8],
        memory: &GuestMemory,
    ) -> Result<Ram> {
        let blocks = newborn.monitor.ram_blocks()?;
        fill_small_blocks(&newborn.record, history, &blocks)?;
        let mut ram = self.arm(&newborn.record, &blocks, memory)?;
        ram.settle();
        write_all(&newborn.state_file, devices)?;
        newborn.monitor.load_devices(Path::new(STATE_PATH), LOAD_LIMIT)?;
        Ok(ram)
    }

    /// Takes a snapshot out of the store: disks that have its content, and memory where that is to be filled.
    fn load(&self, point: Point, listener: UnixListener, memory: Option<&GuestMemory>) -> Result<Loaded> {
        let history = self.history_at(point)?;
        let devices =
            history.store().device_state(point.id)?.ok_or(Error::NoMemoryImage { snapshot: point.id })?;
        // The disks and the head, which says what they descend from, change together: between these steps there
        // are no disks, and all that can be done with the machine is to restore it.
        let remains = self.revoke_disks(&history, point.id)?;
        history.refs().set_head(point.generation, point.id, &history.store().lease()?)?;
        let disks = self.create_disks(&history, remains)?;
        let server = self.serve(listener, &disks)?;
        let table = history.table(&RegionName::ram(RAM_BLOCK_MAIN)?);
        if let (Some(memory), Some(table)) = (memory, table) {
            let path = Path::new("guest memory");
            let file = memory.fd().try_clone_to_owned().map_err(Error::io("fill", path))?;
            heads::fill(&File::from(file), path, history.store(), table)?;
        }
        Ok(Loaded { history, devices, disks, server })
    }

    fn adopt(self) -> Result<(Instance, Option<Child>)> {
        let record: InstanceRecord = load_json(&self.home.instance())?;
        let pid = record.qemu_pid;
        if process_started(pid) != Some(record.qemu_started) {
            return Err(Error::NotThere { pid });
        }
        if !record.ready {
            kill_if_same(pid, record.qemu_started);
            return Err(Error::NeverRan);
        }
        let history = self.history()?;
        let disks = self.open_disks(&history)?;
        let server = self.serve(self.listen()?, &disks)?;
        let memory_file = open_in(pid, watari_qemu::MEMORY_PATH, record.private_memory)?;
        let file = Arc::new(memory_file.into());
        let memory = if record.private_memory { GuestMemory::Shared(file) } else { GuestMemory::Own(file) };
        let state_file = open_in(pid, STATE_PATH, false)?;
        let monitor = connect_monitor(&self.home.socket(QMP_SOCKET))?;
        let mut ram = self.arm(&record, &monitor.ram_blocks()?, &memory)?;
        // The dead keeper knew which pages were written; we do not, so the next capture compares all of them.
        self.distrust(&mut ram, &history, &memory)?;
        if !record.held {
            // It may have died between stop and cont.
            monitor.cont()?;
        }
        let newborn = Newborn { child: None, monitor, state_file, record };
        self.finish(newborn, history, disks, server, memory, ram)
    }
}
