//! The side to which a guest comes before its content does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};
use watari_disk::{Base, Disk, nbd};
use watari_qemu::RAM_BLOCK_MAIN;
use watari_ram::{Faults, ProcessMemory};
use watari_types::{
    Boot, Generation, MachineConfig, NodeId, PAGE_SIZE, PageSet, PageTable, Region, RegionKind, RegionName,
};

use super::cut;
use super::frame::{Frame, Wire};
use super::incoming::{Incoming, nonsense};
use super::lent::{Lent, LentRegion};
use crate::arrival::Arrival;
use crate::ground::{Ground, Newborn};
use crate::history::History;
use crate::home::MachineHome;
use crate::instance::{ArrivingMemory, Instance};
use crate::memory::GuestMemory;
use crate::ram::{self, Ram};
use crate::record::{Point, load_json, save_json};
use crate::start::{load_devices, standard_input};
use crate::{Error, Result};

/// How long QEMU may take to come to its disks.
const AT_ITS_DISKS: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What a machine owes to the one that it was: `machines/NAME/lent.json`. While it is there, the machine's disks are of no
/// use without the node that it came from, and nothing can be done with it once it does not run but to restore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// The number of the snapshot that will hold what is lent.
    pub generation: Generation,
    /// The node that lends it.
    pub from: NodeId,
}

impl Loan {
    /// What the machine owes, if it does.
    pub fn of(home: &MachineHome) -> Result<Option<Loan>> {
        let path = home.lent();
        if path.exists() { load_json(&path).map(Some) } else { Ok(None) }
    }

    /// Nothing is owed any more, durably.
    pub(crate) fn forget(home: &MachineHome) -> Result<()> {
        let path = home.lent();
        match fs::remove_file(&path) {
            Ok(()) => File::open(home.folder())
                .and_then(|folder| folder.sync_all())
                .map_err(Error::io("write", home.folder())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }
}

/// What a machine that runs owes.
pub(crate) struct Debt {
    pub(crate) loan: Loan,
    lent: Arc<Lent>,
    /// Where main memory is.
    start: u64,
    bytes: u64,
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.lent.close();
    }
}

/// What is said of a machine before it is held.
struct Plan {
    loan: Loan,
    /// The pages of each disk that are lent.
    owed: Vec<PageSet>,
    /// The files that it boots from, as far as they came. They may not be on the medium yet.
    boot: BTreeMap<RegionName, File>,
}

/// What there is of a machine once its disks are served.
struct Borrowed {
    loan: Loan,
    history: History,
    lent: Arc<Lent>,
    disks: Vec<Disk>,
    server: nbd::Server,
}

impl Ground {
    /// Brings a machine to life whose content lies elsewhere, but for what is here of it at `base`.
    pub(crate) fn borrow(self, base: Option<Point>, from: NodeId) -> Result<(Instance, Option<Child>)> {
        let stream = standard_input().map_err(cut)?;
        if !self.may_arrive() {
            return Err(Error::CannotBorrow);
        }
        let mut wire = Wire::over(stream).map_err(cut)?;
        let memory = GuestMemory::new(self.file.config.memory_bytes)?;
        let (ground, mut newborn) =
            self.spawn_beside(&memory, false, |socket| self.hear_of_it(&mut wire, base, from, socket))?;
        let Borrowed { loan, history, lent, disks, server } = ground;
        newborn.record.held = true;
        let started = self.take_on(&mut wire, &mut newborn, &history, &memory, &disks, &lent);
        let (ram, start, bytes) = newborn.keep(started, &self.home)?;
        let (mut instance, child) = self.finish(newborn, history, disks, server, memory, ram)?;
        instance.hydrations.clear();
        instance.debt = Some(Debt { loan, lent, start, bytes });
        Ok((instance, child))
    }

    /// Hears what there is, and has its disks served, of which QEMU has been waiting for the first.
    fn hear_of_it(
        &self,
        wire: &mut Wire,
        base: Option<Point>,
        from: NodeId,
        socket: UnixListener,
    ) -> Result<Borrowed> {
        let plan = self.hear_plan(wire, from)?;
        if !plan.owed.is_empty() {
            // It takes what is left of its start about as long as it takes there to hold the guest, and that to come here.
            wait_for_client(&socket)?;
            wire.send_ready().map_err(cut)?;
        }
        let history = match base {
            Some(point) => self.history_at(point)?,
            None => self.history_of_nothing()?,
        };
        let lent = Arc::new(Lent::new(history.store().clone(), self.home.lender()));
        let disks = self.create_lent_disks(&history, base, &plan, &lent)?;
        let server = self.serve(socket, &disks)?;
        // QEMU reads them meanwhile.
        self.sync_boot_files(plan.boot)?;
        Ok(Borrowed { loan: plan.loan, history, lent, disks, server })
    }

    /// Hears how much there is, and takes the files that it boots from if these are not here.
    fn hear_plan(&self, wire: &mut Wire, from: NodeId) -> Result<Plan> {
        let config = &self.file.config;
        let mut owed = vec![PageSet::new(); config.disks.len()];
        let mut boot = BTreeMap::new();
        let mut loan = None;
        loop {
            match wire.receive().map_err(cut)? {
                Frame::Lent(generation) => loan = Some(Loan { generation, from }),
                Frame::Owed { region, pages } if region.kind() == RegionKind::Disk => {
                    let disk = region.rest().parse().ok().and_then(|index: usize| owed.get_mut(index));
                    disk.ok_or_else(|| nonsense("has other disks"))?.union_with(&pages);
                }
                Frame::Pages { region, pages, content } if region.kind() == RegionKind::Boot => {
                    self.write_boot_file(&mut boot, &region, &pages, &content)?;
                }
                Frame::Round => break,
                _ => return Err(nonsense("is out of step")),
            }
        }
        Ok(Plan { loan: loan.ok_or_else(|| nonsense("is out of step"))?, owed, boot })
    }

    fn sync_boot_files(&self, files: BTreeMap<RegionName, File>) -> Result<()> {
        for (region, file) in files {
            let path = self.home.boot_file(region.rest());
            let folder = path.parent().unwrap_or(self.home.folder());
            let synced = file.sync_all().and_then(|()| File::open(folder)?.sync_all());
            synced.map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    fn write_boot_file(
        &self,
        files: &mut BTreeMap<RegionName, File>,
        name: &RegionName,
        pages: &[u32],
        content: &[u8],
    ) -> Result<()> {
        let region =
            boot_region(&self.file.config, name).ok_or_else(|| nonsense("boots from other files"))?;
        let path = self.home.boot_file(name.rest());
        if !files.contains_key(name) {
            fs::create_dir_all(self.home.folder().join("boot")).map_err(Error::io("make", &path))?;
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
            files.insert(name.clone(), file.map_err(Error::io("create", &path))?);
        }
        let Some(file) = files.get(name) else { return Ok(()) };
        for (page, bytes) in pages.iter().zip(content.chunks_exact(PAGE_SIZE)) {
            let start = u64::from(*page) * PAGE_SIZE as u64;
            let there = region.bytes.saturating_sub(start).min(PAGE_SIZE as u64) as usize;
            file.write_all_at(&bytes[..there], start).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    /// Disks whose content is partly here, and otherwise lent. That is on record before there are any.
    fn create_lent_disks(
        &self,
        history: &History,
        base: Option<Point>,
        plan: &Plan,
        lent: &Arc<Lent>,
    ) -> Result<Vec<Disk>> {
        let mut remains = match base {
            Some(point) => self.revoke_disks(history, point.id, &plan.owed)?,
            None => Vec::new(),
        };
        remains.resize_with(self.file.config.disks.len(), || None);
        save_json(&self.home.lent(), &plan.loan)?;
        let mut disks = Vec::new();
        for (index, remains) in remains.into_iter().enumerate() {
            let (name, bytes) = (RegionName::disk(index), self.file.config.disks[index].bytes);
            let table = history.table(&name).cloned().unwrap_or_default();
            let source = LentRegion::new(lent, name, table, plan.owed[index].clone());
            let base = Base { source: Arc::new(source), generation: plan.loan.generation };
            let path = self.home.disk(index);
            disks.push(match remains.filter(|remains| remains.bytes() == bytes) {
                Some(remains) => Disk::create_from(&path, remains, base)?,
                None => Disk::create(&path, bytes, Some(base))?,
            });
        }
        Ok(disks)
    }

    /// Takes what comes until nothing follows, lets main memory arrive when it is touched, and loads the devices. Returns the
    /// observed memory, and where its main part is.
    fn take_on(
        &self,
        wire: &mut Wire,
        newborn: &mut Newborn,
        history: &History,
        memory: &GuestMemory,
        disks: &[Disk],
        lent: &Arc<Lent>,
    ) -> Result<(Ram, u64, u64)> {
        let blocks = newborn.monitor.ram_blocks()?;
        let ranges = ram::ranges(&blocks, memory)?;
        let range = &ranges[ram::main_memory(&ranges)?];
        let Some(uffd) = newborn.record.uffd.filter(|_| newborn.may_wait) else {
            return Err(Error::CannotBorrow);
        };
        if disks.is_empty() {
            wire.send_ready().map_err(cut)?;
        }
        let process = ProcessMemory::open(newborn.record.qemu_pid)?;
        let mut incoming = Incoming::new((process, ranges.clone()), memory, disks)?;
        let mut owed = PageSet::new();
        let devices = loop {
            match wire.receive().map_err(cut)? {
                Frame::Pages { region, pages, content } => incoming.put(&region, &pages, &content)?,
                Frame::Owed { region, pages } if ram::is_main(&region) => owed.union_with(&pages),
                Frame::Devices(state) => break state,
                _ => return Err(nonsense("is out of step")),
            }
        };
        let came = incoming.settle()?;
        let there = memory.populated(range.pages())?;
        let base = history.table(&RegionName::ram(RAM_BLOCK_MAIN)?).cloned().unwrap_or_default();
        let supply = LentRegion::new(lent, range.name.clone(), base, owed);
        let faults = Faults::watch(newborn.record.qemu_pid, uffd, range)?;
        newborn.arrival = Some(Arrival::begin(faults, Arc::new(supply), &self.home.arrived(), &there)?);
        let mut ram = self.arm(&newborn.record, &blocks, memory, newborn.arrival.as_ref())?;
        came.iter().enumerate().for_each(|(range, pages)| ram.distrust(range, pages));
        ram.settle();
        load_devices(newborn, &devices)?;
        newborn.monitor.activate_disks()?;
        Ok((ram, range.start, range.bytes))
    }
}

impl Instance {
    /// What was lent is here, as this snapshot.
    ///
    /// # Errors
    /// It is not, or not that: everything is as before.
    pub(crate) fn repay(&mut self, point: Point) -> Result<()> {
        let Some(debt) = &self.debt else { return Ok(()) };
        if point.generation != debt.loan.generation {
            let expected = debt.loan.generation;
            return Err(Error::Internal(format!("{} was to come, not {}", expected, point.generation)));
        }
        let store = self.history.store().clone();
        store.refresh()?;
        let regions = store.regions(point.id)?;
        let tables: BTreeMap<RegionName, PageTable> = regions.tables().clone();
        self.history.refs().set_head(point.generation, point.id, &store.lease()?)?;
        debt.lent.is_here(tables);
        let arriving = ArrivingMemory { snapshot: point.id, start: debt.start, bytes: debt.bytes };
        self.record.arriving = self.arrival.as_ref().map(|_| arriving);
        save_json(&self.home.instance(), &self.record)?;
        self.history.advance(point, regions)?;
        Loan::forget(&self.home)?;
        self.debt = None;
        self.hydrations = self.disks.iter().map(Disk::hydrate).collect();
        self.arrival.iter().for_each(Arrival::look_again);
        self.board.set_generation(point.generation);
        let phase = self.board.phase();
        self.board.set(phase, "");
        self.save_state()
    }
}

/// Waits until QEMU has come as far as its disks. One that does not come is found dead when it is met.
fn wait_for_client(socket: &UnixListener) -> Result<()> {
    let look = || poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&AT_ITS_DISKS));
    retry_on_intr(look).map(drop).map_err(|error| cut(error.into()))
}

fn boot_region<'a>(config: &'a MachineConfig, name: &RegionName) -> Option<&'a Region> {
    let Boot::Kernel { kernel, initrd, .. } = &config.boot else { return None };
    std::iter::once(kernel).chain(initrd).find(|region| region.name == *name)
}
