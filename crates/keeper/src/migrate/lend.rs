//! The side that a guest leaves before its content does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use watari_disk::Disk;
use watari_ram::{ProcessMemory, Range};
use watari_types::{Boot, PAGE_SIZE, PageSet, PageTable, RegionKind, RegionName, SnapshotId};

use super::cut;
use super::frame::{Frame, MOST_PAGES, Wire};
use super::outgoing::Outgoing;
use crate::capture::Held;
use crate::gather::read_disk;
use crate::instance::Instance;
use crate::protocol::{Lending, Migrated, Progress};
use crate::ram;
use crate::{Error, Result};

/// Pages of main memory that go along: those written last are the ones needed next. 4 MiB.
const HOT: usize = 1024;
/// How much room there is to be for the pause.
const EXPECTED: u64 = 4096;

/// Sends over the socket at `path` what it takes for the guest to go on elsewhere, and holds it. It stays held, and what it
/// holds is lent to whoever asks for it with [`serve`].
///
/// # Errors
/// The guest runs on as before.
pub(crate) fn lend(
    instance: &mut Instance,
    path: &Path,
    lending: &Lending,
    progress: &mut dyn FnMut(Progress),
) -> Result<Migrated> {
    instance.ensure_whole()?;
    let mut outgoing = Outgoing::connect(path)?;
    progress(Progress { step: "saying what there is".to_owned(), done: 0, total: 0 });
    let differing = Differing::since(instance, lending.base)?;
    outgoing.wire.send_lent(instance.history.next_generation()?).map_err(cut)?;
    if lending.boot {
        send_boot_files(&mut outgoing, instance)?;
    }
    let (mut disks, mut ram) = instance.unpublished();
    instance.scan_into(&mut disks, &mut ram)?;
    for (index, unpublished) in disks.iter_mut().enumerate() {
        let name = RegionName::disk(index);
        unpublished.union_with(&differing.of(&name));
        outgoing.wire.send_owed(&name, unpublished).map_err(cut)?;
    }
    outgoing.wire.send_round().map_err(cut)?;
    for (index, range) in instance.ram.ranges().iter().enumerate().filter(|(_, r)| !ram::is_main(&r.name)) {
        let all = PageSet::all(range.pages());
        outgoing.batches(&range.name, &all, |batch, into| instance.ram.read(index, batch, into))?;
    }
    // QEMU is starting there meanwhile.
    instance.staging.expect(EXPECTED);
    let soon = first_reads(instance);
    outgoing.expect(Frame::Ready)?;
    let pause_ms = outgoing
        .hold_and(instance, |outgoing, instance, held| rest(outgoing, instance, held, (&differing, &soon)))?;
    Ok(Migrated { pages: outgoing.pages, bytes: outgoing.wire.sent, rounds: 1, pause_ms })
}

/// What goes while the guest is held: which pages of main memory are lent, and those that will be needed at once.
fn rest(
    outgoing: &mut Outgoing,
    instance: &Instance,
    held: &Held,
    (differing, soon): (&Differing, &PageSet),
) -> Result<()> {
    let main = ram::main_memory(instance.ram.ranges())?;
    let name = &instance.ram.ranges()[main].name;
    let mut owed = differing.of(name);
    owed.union_with(&instance.ram.unpublished()[main]);
    outgoing.wire.send_owed(name, &owed).map_err(cut)?;
    outgoing.send_sealed(held)?;
    outgoing.batches(name, soon, |batch, into| instance.ram.read(main, batch, into))?;
    held.staging.each(|range, pages, bytes| {
        let most = if range == main { pages.len().min(HOT) } else { pages.len() };
        outgoing.send_all(&instance.ram.ranges()[range].name, &pages[..most], &bytes[..most * PAGE_SIZE])
    })?;
    outgoing.wire.send_devices(&held.devices).map_err(cut)
}

/// The pages of main memory that devices read when their state is loaded, which is while the guest is held: each that is not
/// there then takes a round trip.
fn first_reads(instance: &Instance) -> PageSet {
    let page = |byte: u64| u32::try_from(byte / PAGE_SIZE as u64).ok();
    let mut pages = PageSet::new();
    let found = instance.monitor.first_reads(instance.file.config.memory_bytes);
    for bytes in found.iter().filter(|bytes| !bytes.is_empty()) {
        if let (Some(first), Some(last)) = (page(bytes.start), page(bytes.end - 1)) {
            pages.insert_range(first..last + 1);
        }
    }
    pages
}

/// What differs from a snapshot that is there, as far as snapshots tell.
struct Differing(BTreeMap<RegionName, PageSet>);

impl Differing {
    /// Since one that the machine descends from; without one, everything.
    fn since(instance: &Instance, base: Option<SnapshotId>) -> Result<Differing> {
        let history = &instance.history;
        let pages = match (base, history.base()) {
            (Some(base), Some(head)) => history.store().changed_between(base, head.id)?,
            (Some(_), None) => return Err(Error::Internal("it descends from nothing".to_owned())),
            (None, _) => {
                let tables = history.regions().tables().iter();
                tables.map(|(name, table)| (name.clone(), PageTable::pages(table))).collect()
            }
        };
        Ok(Differing(pages))
    }

    fn of(&self, region: &RegionName) -> PageSet {
        self.0.get(region).cloned().unwrap_or_default()
    }
}

fn send_boot_files(outgoing: &mut Outgoing, instance: &Instance) -> Result<()> {
    let Boot::Kernel { kernel, initrd, .. } = &instance.file.config.boot else { return Ok(()) };
    for region in std::iter::once(kernel).chain(initrd) {
        let path = instance.home.boot_file(region.name.rest());
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        let pages = PageSet::all(region.bytes.div_ceil(PAGE_SIZE as u64) as u32);
        outgoing.batches(&region.name, &pages, |batch, into| {
            // The last page is filled up with zeros.
            into.fill(0);
            let start = u64::from(batch[0]) * PAGE_SIZE as u64;
            let there = region.bytes.saturating_sub(start).min(into.len() as u64) as usize;
            file.read_exact_at(&mut into[..there], start).map_err(Error::io("read", &path))
        })?;
    }
    Ok(())
}

/// What a guest that is held has, for whoever wants it: it does not change, whatever else is done with the machine.
#[derive(Clone)]
pub(crate) struct Lender {
    memory: ProcessMemory,
    ranges: Vec<Range>,
    disks: Vec<Disk>,
    /// Whether the guest is about to be held and to leave. A QEMU that starts looks at its disks; what the guest writes there
    /// after it was said what is lent goes along when it is held.
    leaves: Arc<AtomicBool>,
}

/// While it is there, the guest is about to leave.
pub(crate) struct Leaves(Arc<AtomicBool>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Lender {
    pub(crate) fn of(instance: &Instance) -> Lender {
        let (memory, ranges) = instance.ram.places();
        Lender { memory, ranges, disks: instance.disks.clone(), leaves: Arc::default() }
    }

    /// The guest is about to leave.
    pub(crate) fn leaves(&self) -> Leaves {
        self.leaves.store(true, Ordering::Release);
        Leaves(Arc::clone(&self.leaves))
    }

    /// Gives what is wanted over `stream`, until the other side has enough; or until the guest is not held any more.
    pub(crate) fn serve(&self, stream: UnixStream, is_held: impl Fn() -> bool) -> io::Result<()> {
        let mut wire = Wire::over(stream)?;
        let mut buffer = vec![0; MOST_PAGES * PAGE_SIZE];
        loop {
            let (region, pages) = match wire.receive() {
                Ok(Frame::Want { region, pages }) => (region, pages),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "out of step")),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            };
            let content = &mut buffer[..pages.len() * PAGE_SIZE];
            self.read(&region, &pages, content)?;
            // After, not before: it was held all the while if it still is.
            let leaves = region.kind() == RegionKind::Disk && self.leaves.load(Ordering::Acquire);
            if !leaves && !is_held() {
                return Err(io::Error::other("the guest is not held any more"));
            }
            wire.send_pages(&region, &pages, content)?;
        }
    }

    fn read(&self, region: &RegionName, pages: &[u32], into: &mut [u8]) -> io::Result<()> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("there is no {region}"));
        match region.kind() {
            RegionKind::Ram => {
                let range = self.ranges.iter().find(|range| range.name == *region).ok_or_else(unknown)?;
                self.memory.read_pages(range, pages, into).map_err(io::Error::other)
            }
            RegionKind::Disk => {
                let index: usize = region.rest().parse().map_err(|_| unknown())?;
                let disk = self.disks.get(index).ok_or_else(unknown)?;
                read_disk(disk, pages, into).map_err(io::Error::other)
            }
            RegionKind::Boot => Err(unknown()),
        }
    }
}
