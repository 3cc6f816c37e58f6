//! What every start of an instance stands on: disks, their server, memory, the QEMU process.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use watari_disk::{Disk, Remains, nbd};
use watari_qemu::{
    AGENT_SOCKET, Accel, AccelProbe, BootFiles, DESKTOP_SOCKET, Display, GDB_SOCKET, Launch, MemoryBacking,
    Monitor, QMP_SOCKET, Qemu, RAM_BLOCK_MAIN, RamBlock, SERIAL_SOCKET, VNC_SOCKET, plug_into,
};
use watari_ram::{Born, ProcessMemory, TrackerKind};
use watari_store::{NodeKey, Store};
use watari_types::{Boot, PAGE_SIZE, PageSet, RegionName, SnapshotId};

use crate::arrival::Arrival;
use crate::hands::Hands;
use crate::heads;
use crate::history::History;
use crate::home::{Home, MachineHome};
use crate::instance::{Instance, InstanceRecord};
use crate::memory::GuestMemory;
use crate::migrate::Loan;
use crate::process::process_started;
use crate::protocol::{MemoryFrom, Status};
use crate::ram::{self, Ram};
use crate::record::{MachineFile, MachineState, NetworkStart, Phase, Point, load_json, save_json};
use crate::settings::Settings;
use crate::staging::Staging;
use crate::status::Board;
use crate::{Error, Result};

/// How long QEMU may take to open its monitor.
const MONITOR_LIMIT: Duration = Duration::from_secs(30);
/// The socket of a machine's disk server.
const DISK_SOCKET: &str = "disks";

/// What is known of a machine before anything runs.
pub(crate) struct Ground {
    pub(crate) node: Home,
    pub(crate) home: MachineHome,
    pub(crate) file: MachineFile,
    /// What `state.json` said before this start.
    pub(crate) before: MachineState,
    pub(crate) key: NodeKey,
    pub(crate) settings: Settings,
    /// What QEMU can show its machine with.
    pub(crate) display: Display,
    /// Where to look for QEMU, as in `PATH`.
    pub(crate) search_path: OsString,
}

/// A QEMU that was started and may not answer yet.
struct Launched {
    child: Child,
    state_file: File,
    record: InstanceRecord,
    may_wait: bool,
    is_resumed: bool,
}

impl Launched {
    fn end(&mut self, home: &MachineHome) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(home.instance());
    }
}

/// A QEMU that was started and does not run its guest yet, or that was taken over.
pub(crate) struct Newborn {
    pub(crate) child: Option<Child>,
    pub(crate) monitor: Monitor,
    pub(crate) state_file: File,
    pub(crate) record: InstanceRecord,
    /// Whether there may be pages of its memory that are not there yet.
    pub(crate) may_wait: bool,
    /// Whether its guest goes on from a moment of another run.
    pub(crate) is_resumed: bool,
    pub(crate) arrival: Option<Arrival>,
}

impl Newborn {
    /// Lets the guest run, unless it is to be held.
    pub(crate) fn set_going(&self) -> Result<()> {
        if self.record.held { Ok(()) } else { Ok(self.monitor.cont()?) }
    }

    /// Passes on what worked; on failure ends the QEMU that was started for it.
    pub(crate) fn keep<T>(&mut self, started: Result<T>, home: &MachineHome) -> Result<T> {
        started.inspect_err(|_| self.end(home))
    }

    /// Ends the QEMU that was started.
    pub(crate) fn end(&mut self, home: &MachineHome) {
        self.arrival = None;
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(home.instance());
    }
}

impl Ground {
    /// The history as seen from the snapshot that the machine's disks and their marks descend from: the head, not
    /// what `state.json` says. A keeper that dies right after publishing has taken the marks away and not yet
    /// written its state.
    pub(crate) fn history(&self) -> Result<History> {
        let store = Store::open(&self.node.store())?;
        let head = store.refs(self.file.config.id).head()?;
        let base = head.map(|head| Point { generation: head.generation, id: head.id });
        History::load(&store, self.file.config.id, base)
    }

    /// The history as seen from any of its snapshots.
    pub(crate) fn history_at(&self, point: Point) -> Result<History> {
        History::load(&Store::open(&self.node.store())?, self.file.config.id, Some(point))
    }

    /// The disks as the machine left them. What is not in their files comes from the base.
    pub(crate) fn open_disks(&self, history: &History) -> Result<Vec<Disk>> {
        let open =
            |index| Ok(Disk::open(&self.home.disk(index), history.disk_base(&RegionName::disk(index)))?);
        (0..self.file.config.disks.len()).map(open).collect()
    }

    /// The history of a machine that has no snapshot here.
    pub(crate) fn history_of_nothing(&self) -> Result<History> {
        History::load(&Store::open(&self.node.store())?, self.file.config.id, None)
    }

    /// Makes the machine's disks unusable until others are created, durably. Returns of each what can be kept when the machine
    /// is to stand at `wanted`, but for those pages of each disk that are in `since`.
    pub(crate) fn revoke_disks(
        &self,
        history: &History,
        wanted: SnapshotId,
        since: &[PageSet],
    ) -> Result<Vec<Option<Remains>>> {
        // What is in the files of a machine that was not whole is of no snapshot that is here.
        let head = if Loan::of(&self.home)?.is_some() { None } else { history.refs().head()? };
        let differing = head.map(|head| history.store().changed_between(head.id, wanted));
        let differing = differing.and_then(|found| {
            found.inspect_err(|error| tracing::warn!("the disks are made anew: {error}")).ok()
        });
        let revoke = |index| {
            let name = RegionName::disk(index);
            let differing = differing.as_ref().map(|all| {
                let mut pages = all.get(&name).cloned().unwrap_or_default();
                since.get(index).into_iter().for_each(|since| pages.union_with(since));
                pages
            });
            Ok(Disk::revoke(&self.home.disk(index), differing.as_ref())?)
        };
        (0..self.file.config.disks.len()).map(revoke).collect()
    }

    /// New disks with the content of the base, of which only what remains of the old ones is here yet.
    pub(crate) fn create_disks(&self, history: &History, remains: Vec<Option<Remains>>) -> Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for ((index, disk), remains) in self.file.config.disks.iter().enumerate().zip(remains) {
            let path = self.home.disk(index);
            let remains = remains.filter(|remains| remains.bytes() == disk.bytes);
            disks.push(match (remains, history.disk_base(&RegionName::disk(index))) {
                (Some(remains), Some(base)) => Disk::create_from(&path, remains, base)?,
                (_, base) => Disk::create(&path, disk.bytes, base)?,
            });
        }
        Ok(disks)
    }

    /// The machine's disk socket. Who connects to it waits until the disks are served.
    pub(crate) fn listen(&self) -> Result<UnixListener> {
        let socket = self.home.socket(DISK_SOCKET);
        remove_stale(&socket)?;
        UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))
    }

    /// Offers the disks on the machine's disk socket.
    pub(crate) fn serve(&self, listener: UnixListener, disks: &[Disk]) -> Result<nbd::Server> {
        self.serve_exports(listener, disks.iter().map(|disk| Arc::new(disk.clone()) as Arc<dyn nbd::Export>))
    }

    /// Offers anything as the machine's disks.
    pub(crate) fn serve_exports(
        &self,
        listener: UnixListener,
        exports: impl Iterator<Item = Arc<dyn nbd::Export>>,
    ) -> Result<nbd::Server> {
        let exports = exports.enumerate().map(|(index, export)| (index.to_string(), export)).collect();
        let socket = self.home.socket(DISK_SOCKET);
        nbd::Server::start(listener, exports).map_err(Error::io("serve disks on", &socket))
    }

    /// Main memory for a resume: a shared head, what a run before left, or an empty file to be filled.
    pub(crate) fn memory_for(&self, point: Point, from: MemoryFrom) -> Result<GuestMemory> {
        let bytes = self.file.config.memory_bytes;
        match from {
            MemoryFrom::Store => return GuestMemory::new(bytes),
            MemoryFrom::StandardInput => return GuestMemory::from_standard_input(bytes),
            MemoryFrom::Head => {}
        }
        let head = heads::hold(&self.node, point.id, |path| {
            let history = self.history_at(point)?;
            let table = history.table(&RegionName::ram(RAM_BLOCK_MAIN)?).cloned().unwrap_or_default();
            heads::make(path, history.store(), &table, bytes)
        })?;
        Ok(GuestMemory::Shared(Arc::new(head.into())))
    }

    /// Starts to observe QEMU's RAM blocks, of which main memory may be `arrival`'s. What was written before counts as
    /// unwritten.
    pub(crate) fn arm(
        &self,
        record: &InstanceRecord,
        blocks: &[RamBlock],
        memory: &GuestMemory,
        arrival: Option<&Arrival>,
    ) -> Result<Ram> {
        let ranges = ram::ranges(blocks, memory)?;
        let arm = || Ram::arm(record.qemu_pid, record.uffd, ranges.clone(), self.settings.tracker_choice());
        let mut ram = arm()?;
        if let Some(arriving) = arrival.map(Arrival::progress) {
            if ram.tracker() == TrackerKind::Compare {
                // It has compared pages that were not there.
                arriving.wait();
                ram = arm()?;
            }
            ram.arriving(Some(arriving));
        }
        Ok(ram)
    }

    /// Starts QEMU, its guest not running, with a userfaultfd in its address space where the host allows it.
    pub(crate) fn spawn(&self, memory: &GuestMemory, incoming: bool, gdb: bool) -> Result<Newborn> {
        self.meet(self.launch(memory, incoming, gdb)?)
    }

    /// Starts QEMU for a guest that comes from elsewhere, and has it start while `prepare` does what it needs none of before it
    /// is through with its disks: it waits at their socket until they are served, however long that takes. Where it has none, it
    /// waits for nothing, and starts afterwards.
    pub(crate) fn spawn_beside<T>(
        &self,
        memory: &GuestMemory,
        gdb: bool,
        prepare: impl FnOnce(UnixListener) -> Result<T>,
    ) -> Result<(T, Newborn)> {
        let listener = self.listen()?;
        if self.file.config.disks.is_empty() {
            return Ok((prepare(listener)?, self.spawn(memory, true, gdb)?));
        }
        let mut launched = self.launch(memory, true, gdb)?;
        match prepare(listener) {
            Ok(prepared) => Ok((prepared, self.meet(launched)?)),
            Err(error) => {
                launched.end(&self.home);
                Err(error)
            }
        }
    }

    /// Starts QEMU, and does not wait until it answers.
    fn launch(&self, memory: &GuestMemory, incoming: bool, gdb: bool) -> Result<Launched> {
        for name in [QMP_SOCKET, VNC_SOCKET, SERIAL_SOCKET, AGENT_SOCKET, DESKTOP_SOCKET, GDB_SOCKET] {
            remove_stale(&self.home.socket(name))?;
        }
        let binary = Qemu::locate(&self.search_path)?;
        let accel = match self.settings.accelerator {
            Some(accel) => accel,
            None => load_json::<AccelProbe>(&self.node.accel())?.accel,
        };
        let state_file: File = memfd_create("watari-devices", MemfdFlags::CLOEXEC)
            .map_err(|e| Error::DeviceState { source: e.into() })?
            .into();
        let mut command = self.command(&binary, accel, memory, &state_file, (incoming, gdb))?;
        let Born { child, uffd, kernel_waits } = watari_ram::spawn(&mut command)?;
        let record = InstanceRecord {
            qemu_pid: child.id(),
            qemu_started: process_started(child.id()).ok_or(Error::NotThere { pid: child.id() })?,
            uffd,
            private_memory: memory.is_private(),
            accel,
            qemu_version: String::new(),
            ready: false,
            held: false,
            gdb,
            display: self.display,
            arriving: None,
            epoch: self.before.epoch.next(),
        };
        let mut launched =
            Launched { child, state_file, record, may_wait: kernel_waits, is_resumed: incoming };
        save_json(&self.home.instance(), &launched.record).inspect_err(|_| launched.end(&self.home))?;
        Ok(launched)
    }

    /// Waits until a QEMU answers that was started.
    fn meet(&self, mut launched: Launched) -> Result<Newborn> {
        let monitor = self.monitor_of(&launched.record).inspect_err(|_| launched.end(&self.home))?;
        let Launched { child, state_file, mut record, may_wait, is_resumed } = launched;
        record.qemu_version = monitor.version().to_string();
        Ok(Newborn { child: Some(child), monitor, state_file, record, may_wait, is_resumed, arrival: None })
    }

    /// Waits for the monitor, but not for one of a QEMU that has died.
    fn monitor_of(&self, record: &InstanceRecord) -> Result<Monitor> {
        let socket = self.home.socket(QMP_SOCKET);
        let deadline = Instant::now() + MONITOR_LIMIT;
        loop {
            let patience = Instant::now() + Duration::from_millis(200);
            match Monitor::connect(&socket, patience.min(deadline)) {
                Ok(monitor) => return Ok(monitor),
                Err(_) if process_started(record.qemu_pid) != Some(record.qemu_started) => {
                    return Err(Error::QemuDied { reason: last_words(&self.home) });
                }
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => {}
            }
        }
    }

    fn command(
        &self,
        binary: &Path,
        accel: Accel,
        memory: &GuestMemory,
        state: &File,
        (incoming, gdb): (bool, bool),
    ) -> Result<std::process::Command> {
        let config = &self.file.config;
        let (kernel, initrd) = (self.home.boot_file("kernel"), self.home.boot_file("initrd"));
        let boot = match &config.boot {
            Boot::Disk => None,
            Boot::Kernel { initrd: region, .. } => {
                Some(BootFiles { kernel: &kernel, initrd: region.is_some().then_some(initrd.as_path()) })
            }
        };
        let bridges = config.nics.iter().filter_map(|_| self.file.bridge.as_ref());
        let taps = bridges.map(|bridge| plug_into(bridge.as_str())).collect::<Result<Vec<_>, _>>()?;
        let launch = Launch {
            taps: &taps,
            config,
            name: self.file.name.as_str(),
            accel,
            memory: MemoryBacking { file: memory.fd(), private: memory.is_private() },
            state: state.as_fd(),
            disks: &vec![self.home.socket(DISK_SOCKET); config.disks.len()],
            boot,
            run_dir: self.home.run(),
            log: &self.home.log("qemu"),
            serial_log: &self.home.log("serial"),
            identity: &self.identity(),
            vmgenid: random_id()?,
            incoming,
            display: self.display,
            gdb,
        };
        Ok(launch.command(binary)?)
    }

    /// What the guest can read about itself.
    fn identity(&self) -> String {
        let MachineFile { name, config, origin, .. } = &self.file;
        let epoch = self.before.epoch.next();
        let kind = if origin.is_some() { "clone" } else { "original" };
        let mut text = format!("name={name}\nid={}\nkind={kind}\nepoch={epoch}\n", config.id);
        if let Some(origin) = origin {
            text += &format!(
                "origin_name={}\norigin_id={}\norigin_snapshot={}\n",
                origin.name, origin.machine, origin.snapshot
            );
        }
        text
    }

    /// Marks what may differ from the base without having been written under our eyes: everything that is not
    /// zero now, or was not zero then. Of blocks other than main memory, which are small, that is all pages.
    pub(crate) fn distrust(&self, ram: &mut Ram, history: &History, memory: &GuestMemory) -> Result<()> {
        let main = ram::main_memory(ram.ranges())?;
        for range in 0..ram.ranges().len() {
            let pages = (ram.ranges()[range].bytes / PAGE_SIZE as u64) as u32;
            let mut suspects = if range == main { memory.populated(pages)? } else { PageSet::all(pages) };
            if let Some(table) = history.table(&ram.ranges()[range].name) {
                suspects.union_with(&table.pages());
            }
            ram.distrust(range, &suspects);
        }
        Ok(())
    }

    /// What must be so before a resumed guest takes its first step.
    pub(crate) fn before_first_step(&self, monitor: &Monitor, network: &NetworkStart) -> Result<()> {
        let up = match network {
            NetworkStart::Same => return Ok(()),
            NetworkStart::Plugged => true,
            NetworkStart::Unplugged | NetworkStart::Fresh => false,
        };
        (0..self.file.config.nics.len()).try_for_each(|nic| Ok(monitor.set_link(nic, up)?))
    }

    /// Puts everything together once the guest runs, and writes down that it does.
    pub(crate) fn finish(
        self,
        newborn: Newborn,
        history: History,
        disks: Vec<Disk>,
        disk_server: nbd::Server,
        memory: GuestMemory,
        ram: Ram,
    ) -> Result<(Instance, Option<Child>)> {
        let Newborn { child, monitor, state_file, mut record, arrival, is_resumed, may_wait: _ } = newborn;
        record.ready = true;
        save_json(&self.home.instance(), &record)?;
        let (phase, reason) = if record.held { (Phase::Paused, "paused") } else { (Phase::Running, "") };
        let status = Status {
            name: self.file.name.clone(),
            phase,
            reason: reason.to_owned(),
            generation: history.base().map(|point| point.generation),
            keeper_pid: std::process::id(),
            qemu_pid: record.qemu_pid,
            accelerator: record.accel.to_string(),
            tracker: ram.tracker().to_string(),
            absent_disk_pages: 0,
            absent_ram_pages: 0,
        };
        let arriving = arrival.as_ref().map(Arrival::progress);
        let board = Board::new(status, disks.clone(), arriving);
        let hands = Hands::new(self.file.name.clone(), monitor.clone(), board.clone(), is_resumed);
        let mut staging = Staging::default();
        staging.expect(0);
        let instance = Instance {
            home: self.home,
            file: self.file,
            key: self.key,
            history,
            monitor,
            hands,
            ram,
            hydrations: disks.iter().map(Disk::hydrate).collect(),
            board,
            arrival,
            debt: None,
            disks,
            staging,
            record,
            state_file,
            memory,
            _disk_server: disk_server,
        };
        instance.save_state()?;
        Ok((instance, child))
    }
}

/// Writes the RAM blocks other than main memory: video memory, firmware, tables.
pub(crate) fn fill_small_blocks(
    record: &InstanceRecord,
    history: &History,
    blocks: &[RamBlock],
) -> Result<()> {
    let process = ProcessMemory::open(record.qemu_pid)?;
    let regions = history.base_snapshot().map(|s| s.draft.regions.as_slice()).unwrap_or_default();
    for block in blocks.iter().filter(|block| block.name != RAM_BLOCK_MAIN && block.used > 0) {
        let name = RegionName::ram(&block.name)?;
        let region = regions.iter().find(|r| r.name == name);
        match region {
            Some(region) if region.bytes == block.used => {}
            _ => return Err(Error::MissingBlock { block: block.name.clone() }),
        }
        let Some(table) = history.table(&name) else { continue };
        zero_what_was_zero(&process, block, table)?;
        history.store().read_pages(table.iter(), 1, &|page, bytes| {
            let address = block.host_address + u64::from(page) * PAGE_SIZE as u64;
            process.write(address, bytes).map_err(std::io::Error::other)
        })?;
    }
    Ok(())
}

/// A new QEMU has put something of its own into some blocks (firmware, tables): pages that the snapshot holds
/// as zero must become zero.
fn zero_what_was_zero(
    process: &ProcessMemory,
    block: &RamBlock,
    table: &watari_types::PageTable,
) -> Result<()> {
    let mut bytes = vec![0; block.used as usize];
    process.read(block.host_address, &mut bytes)?;
    for (page, content) in (0..).zip(bytes.as_chunks::<PAGE_SIZE>().0) {
        if table.get(page).is_zero_page() && !watari_types::is_zero(content) {
            let address = block.host_address + u64::from(page) * PAGE_SIZE as u64;
            process.write(address, &[0; PAGE_SIZE])?;
        }
    }
    Ok(())
}

/// Connects to the monitor of a QEMU that is known to run.
pub(crate) fn connect_monitor(socket: &Path) -> Result<Monitor> {
    Ok(Monitor::connect(socket, Instant::now() + MONITOR_LIMIT)?)
}

/// Opens what another process has open, as that process would name it (`/proc/self/fd/N`).
pub(crate) fn open_in(pid: u32, path_there: &str, read_only: bool) -> Result<File> {
    let path = std::path::PathBuf::from(path_there.replace("/self/", &format!("/{pid}/")));
    OpenOptions::new().read(true).write(!read_only).open(&path).map_err(Error::io("take over", &path))
}

/// Replaces a file's content.
pub(crate) fn write_all(file: &File, bytes: &[u8]) -> Result<()> {
    file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).map_err(|source| Error::DeviceState { source })
}

/// The last line QEMU wrote into its log.
pub(crate) fn last_words(home: &MachineHome) -> String {
    let log = fs::read(home.log("qemu")).unwrap_or_default();
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
    tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

fn remove_stale(socket: &Path) -> Result<()> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", socket)(e)),
        _ => Ok(()),
    }
}

fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::io("read random bytes from", Path::new("the kernel"))(e.into()))?;
    Ok(id)
}
