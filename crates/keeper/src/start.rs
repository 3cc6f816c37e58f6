//! How an instance comes to life: powered on, resumed from a snapshot, or taken over from a dead keeper.
//!
//! ```text
//!  boot     disks → disk server → empty memory ─→ QEMU ─────────────→ arm ──────────────────→ cont
//!  resume   history → disks → disk server → memory checked ┬→ small blocks → arm → devices → cont
//!           QEMU (incoming) ───────────────────────────────┴→ memory arrives ─────────────────────→
//!  receive  as resume, but all of memory is filled → arm → what another keeper sends → devices
//!  borrow   files to boot → disks → disk server ┬→ what is needed at once → memory arrives → arm → devices
//!           QEMU (incoming) ────────────────────┘
//!  adopt    disks → disk server → QEMU runs already: its monitor, its memory, its userfaultfd → arm
//! ```
//!
//! What of main memory is there already, left by a run that was given up for this one, is neither checked nor arrives. Where
//! the host does not allow memory to arrive while the guest runs ([`arrival`](crate::arrival)), it is filled where it is checked
//! otherwise.
//!
//! A machine's lock is held from before the first step. Until `cont` a failure ends QEMU and leaves the machine
//! as it was, except that a resume has replaced its disks and its head: the machine stands at the snapshot then.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use watari_disk::{Disk, nbd};
use watari_qemu::{QMP_SOCKET, RAM_BLOCK_MAIN, STATE_PATH};
use watari_ram::{Faults, Range, TrackerChoice};
use watari_store::Store;
use watari_types::{PageHash, PageSet, PageTable, RegionName};

use crate::arrival::{Arrival, InStore};
use crate::ground::{Ground, Newborn, connect_monitor, fill_small_blocks, open_in, write_all};
use crate::history::History;
use crate::instance::{ArrivingMemory, Instance, InstanceRecord};
use crate::memory::{GuestMemory, fill, threads};
use crate::migrate::{self, Loan};
use crate::process::{kill_if_same, process_started};
use crate::protocol::{MemoryFrom, NetworkAction, Start};
use crate::ram::{self, Ram};
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

/// What becomes of those pages of a resumed machine's main memory that are not there, before its first step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// All are there.
    IsThere,
    /// They are filled in.
    IsFilled,
    /// They arrive later, and were checked to be readable.
    Arrives,
    /// They arrive later, and are checked now.
    ArrivesUnchecked,
}

impl Ground {
    /// Brings the machine to life. Returns it with its QEMU if that is our child.
    pub(crate) fn start(self, how: &Start) -> Result<(Instance, Option<Child>)> {
        match how {
            Start::Boot { held } => self.boot(*held),
            Start::Resume { snapshot, generation, network, memory, held, gdb } => {
                let point = Point { generation: *generation, id: *snapshot };
                self.resume(point, network, *memory, (*held, *gdb))
            }
            Start::Receive { snapshot, generation } => {
                self.receive(Point { generation: *generation, id: *snapshot })
            }
            Start::Borrow { base, from } => self.borrow(*base, *from),
            Start::Adopt => self.adopt(),
        }
    }

    fn boot(self, held: bool) -> Result<(Instance, Option<Child>)> {
        self.ensure_whole()?;
        let history = self.history()?;
        let disks = self.open_disks(&history)?;
        let server = self.serve(self.listen()?, &disks)?;
        let memory = GuestMemory::new(self.file.config.memory_bytes)?;
        let mut newborn = self.spawn(&memory, false, false)?;
        newborn.record.held = held;
        let started = (|| {
            let mut ram = self.arm(&newborn.record, &newborn.monitor.ram_blocks()?, &memory, None)?;
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
        from: MemoryFrom,
        (held, gdb): (bool, bool),
    ) -> Result<(Instance, Option<Child>)> {
        let memory = self.memory_for(point, from)?;
        let content = match from {
            MemoryFrom::Head => Content::IsThere,
            _ if !self.may_arrive() => Content::IsFilled,
            MemoryFrom::Store => Content::ArrivesUnchecked,
            // The run that left it checked the rest before it was ended.
            MemoryFrom::StandardInput => Content::Arrives,
        };
        let (Loaded { history, devices, disks, server }, mut newborn) =
            self.spawn_beside(&memory, gdb, |disks| self.load(point, disks, &memory, content))?;
        newborn.record.held = held;
        let started = (|| {
            if matches!(content, Content::Arrives | Content::ArrivesUnchecked) {
                self.let_arrive(&mut newborn, &history, point, &memory)?;
            }
            let ram = self.load_into(&newborn, &history, &devices, &memory)?;
            self.before_first_step(&newborn.monitor, network)?;
            if held {
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

    /// Like a resume, but that the last of what the machine holds comes from another keeper.
    fn receive(self, point: Point) -> Result<(Instance, Option<Child>)> {
        let stream = standard_input().map_err(|source| Error::Migration { source })?;
        let memory = self.memory_for(point, MemoryFrom::Store)?;
        let (Loaded { history, disks, server, .. }, mut newborn) =
            self.spawn_beside(&memory, false, |disks| self.load(point, disks, &memory, Content::IsFilled))?;
        newborn.record.held = true;
        let started = (|| {
            let blocks = newborn.monitor.ram_blocks()?;
            fill_small_blocks(&newborn.record, &history, &blocks)?;
            let mut ram = self.arm(&newborn.record, &blocks, &memory, None)?;
            ram.settle();
            let devices = migrate::receive(stream, &mut ram, &memory, &disks)?;
            load_devices(&newborn, &devices)?;
            newborn.monitor.activate_disks()?;
            Ok(ram)
        })();
        let ram = newborn.keep(started, &self.home)?;
        self.finish(newborn, history, disks, server, memory, ram)
    }

    /// Whether memory may arrive while the guest runs. The kernel must tell what is written meanwhile: nobody can compare
    /// pages that are not there.
    pub(crate) fn may_arrive(&self) -> bool {
        self.settings.tracker_choice() == TrackerChoice::Best && watari_ram::can_watch()
    }

    /// Has those pages of main memory arrive from now on that are not there; or fills them in, where QEMU cannot be made to
    /// wait for them.
    fn let_arrive(
        &self,
        newborn: &mut Newborn,
        history: &History,
        point: Point,
        memory: &GuestMemory,
    ) -> Result<()> {
        let Some(table) = history.table(&RegionName::ram(RAM_BLOCK_MAIN)?) else { return Ok(()) };
        let ranges = ram::ranges(&newborn.monitor.ram_blocks()?, memory)?;
        let range = &ranges[ram::main_memory(&ranges)?];
        let record = &mut newborn.record;
        let Some(uffd) = record.uffd.filter(|_| newborn.may_wait) else {
            return fill_up(memory, history.store(), table);
        };
        let there = memory.populated(range.pages())?;
        let faults = Faults::watch(record.qemu_pid, uffd, range)?;
        let supply = InStore { store: history.store().clone(), table: table.clone() };
        let arrival = Arrival::begin(faults, Arc::new(supply), &self.home.arrived(), &there)?;
        newborn.arrival = Some(arrival);
        record.arriving = Some(ArrivingMemory { snapshot: point.id, start: range.start, bytes: range.bytes });
        Ok(())
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
        let mut ram = self.arm(&newborn.record, &blocks, memory, newborn.arrival.as_ref())?;
        ram.settle();
        load_devices(newborn, devices)?;
        Ok(ram)
    }

    /// Takes a snapshot out of the store: disks that have its content, and memory where that is to be filled.
    fn load(
        &self,
        point: Point,
        listener: UnixListener,
        memory: &GuestMemory,
        content: Content,
    ) -> Result<Loaded> {
        let history = self.history_at(point)?;
        let devices =
            history.store().device_state(point.id)?.ok_or(Error::NoMemoryImage { snapshot: point.id })?;
        // The disks and the head, which says what they descend from, change together: between these steps there
        // are no disks, and all that can be done with the machine is to restore it.
        let remains = self.revoke_disks(&history, point.id, &[])?;
        history.refs().set_head(point.generation, point.id, &history.store().lease()?)?;
        let disks = self.create_disks(&history, remains)?;
        Loan::forget(&self.home)?;
        let server = self.serve(listener, &disks)?;
        if let Some(table) = history.table(&RegionName::ram(RAM_BLOCK_MAIN)?) {
            match content {
                Content::IsThere | Content::Arrives => {}
                Content::IsFilled => fill_up(memory, history.store(), table)?,
                Content::ArrivesUnchecked => {
                    history.store().check_readable(named(&memory.absent(table)?, table), threads())?;
                }
            }
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
        self.ensure_whole()?;
        let history = self.history()?;
        let disks = self.open_disks(&history)?;
        let server = self.serve(self.listen()?, &disks)?;
        let arrival = self.go_on_arriving(&record, &history)?;
        let file = Arc::new(memory_of(&record)?.into());
        let memory = if record.private_memory { GuestMemory::Shared(file) } else { GuestMemory::Own(file) };
        let state_file = open_in(pid, STATE_PATH, false)?;
        let monitor = connect_monitor(&self.home.socket(QMP_SOCKET))?;
        let mut ram = self.arm(&record, &monitor.ram_blocks()?, &memory, arrival.as_ref())?;
        // The dead keeper knew which pages were written; we do not, so the next capture compares all of them.
        self.distrust(&mut ram, &history, &memory)?;
        if !record.held {
            // It may have died between stop and cont.
            monitor.cont()?;
        }
        let newborn =
            Newborn { child: None, monitor, state_file, record, may_wait: false, is_resumed: false, arrival };
        self.finish(newborn, history, disks, server, memory, ram)
    }

    /// Refuses a machine of which only the keeper that is gone knew how to get the rest.
    fn ensure_whole(&self) -> Result<()> {
        match Loan::of(&self.home)? {
            Some(loan) => Err(Error::NotWhole { generation: loan.generation }),
            None => Ok(()),
        }
    }

    /// Has the rest of main memory arrive that a dead keeper was filling. Before anything else, as QEMU may be waiting for a
    /// page of it and answer nobody.
    fn go_on_arriving(&self, record: &InstanceRecord, history: &History) -> Result<Option<Arrival>> {
        let (Some(arriving), Some(uffd)) = (record.arriving, record.uffd) else { return Ok(None) };
        let name = RegionName::ram(RAM_BLOCK_MAIN)?;
        let table = history.store().page_tables(arriving.snapshot)?.remove(&name).unwrap_or_default();
        let memory = GuestMemory::Own(Arc::new(memory_of(record)?.into()));
        let range = Range { backing: memory.backing(), ..Range::new(name, arriving.start, arriving.bytes) };
        let there = memory.populated(range.pages())?;
        let faults = Faults::watch(record.qemu_pid, uffd, &range)?;
        let supply = InStore { store: history.store().clone(), table };
        Arrival::go_on(faults, Arc::new(supply), &self.home.arrived(), &there).map(Some)
    }
}

/// The file that a running QEMU has mapped as its main memory.
fn memory_of(record: &InstanceRecord) -> Result<File> {
    open_in(record.qemu_pid, watari_qemu::MEMORY_PATH, record.private_memory)
}

/// Takes what is at standard input from there: nobody else is to keep it open.
pub(crate) fn standard_input() -> std::io::Result<UnixStream> {
    let stream = std::io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(stream.into())
}

pub(crate) fn load_devices(newborn: &Newborn, devices: &[u8]) -> Result<()> {
    write_all(&newborn.state_file, devices)?;
    Ok(newborn.monitor.load_devices(Path::new(STATE_PATH), LOAD_LIMIT)?)
}

/// Fills in what is not there of what `table` says.
fn fill_up(memory: &GuestMemory, store: &Store, table: &PageTable) -> Result<()> {
    let path = Path::new("guest memory");
    let file = memory.fd().try_clone_to_owned().map_err(Error::io("fill", path))?;
    fill(&File::from(file), path, store, named(&memory.absent(table)?, table))
}

fn named(pages: &PageSet, table: &PageTable) -> impl Iterator<Item = (u32, PageHash)> {
    pages.iter().map(|page| (page, table.get(page)))
}
