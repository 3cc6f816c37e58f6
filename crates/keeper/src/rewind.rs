//! A running machine is given up for one of its snapshots, and its memory is what the next run starts with.
//!
//! First, while the guest runs, everything that a resume reads is checked: a machine that runs is not given up for
//! a snapshot that is damaged. Then it is captured, unless what it leaves behind is not wanted, and does not go on
//! from that instant. Then memory that was not written since the last snapshot, and is the same in the
//! snapshot wanted, stays as it is: how long nothing runs depends on what changed, not on the machine's size.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use watari_qemu::MEMORY_PATH;
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageSet, PageTable, RegionKind, RegionName, SnapshotId, is_zero};

use crate::capture;
use crate::ground::open_in;
use crate::instance::Instance;
use crate::memory::GuestMemory;
use crate::protocol::{GivenUp, Progress};
use crate::ram;
use crate::record::Point;
use crate::{Error, Result};

const PAGE: u64 = PAGE_SIZE as u64;

/// The main memory of a QEMU that runs, which outlives it for as long as this is open.
///
/// # Errors
/// There is no such process, or it is not ours.
pub fn memory_of(qemu_pid: u32) -> Result<File> {
    open_in(qemu_pid, MEMORY_PATH, false)
}

/// Checks that everything a resume of `snapshot` reads is there, makes a snapshot of what is left behind if that is to
/// be kept, then has the guest ended by `end`, and turns its memory into the snapshot's, where it is the machine's own.
///
/// # Errors
/// The machine runs on, unless the store fails right after it was checked.
pub(crate) fn give_up(
    instance: &mut Instance,
    snapshot: SnapshotId,
    keep: Option<&str>,
    progress: &mut dyn FnMut(Progress),
    end: impl FnOnce(),
) -> Result<GivenUp> {
    let store = instance.history.store().clone();
    store.refresh()?;
    let tables = store.page_tables(snapshot)?;
    check(&store, &tables)?;
    let kept = keep.map(|message| capture::last_checkpoint(instance, message, progress)).transpose();
    let kept = kept.map_err(|error| Error::NotKept(Box::new(error)))?;
    let memory_is_ready = rewind(instance, &store, &tables, end)?;
    Ok(GivenUp { memory_is_ready, kept: kept.map(|done| Point { generation: done.generation, id: done.id }) })
}

/// Has the guest ended by `end`. Returns whether its memory holds what `tables` say.
fn rewind(
    instance: &mut Instance,
    store: &Store,
    tables: &BTreeMap<RegionName, PageTable>,
    end: impl FnOnce(),
) -> Result<bool> {
    let GuestMemory::Own(file) = &instance.memory else {
        end();
        return Ok(false);
    };
    let main = ram::main_memory(instance.ram.ranges())?;
    let (name, nothing) = (&instance.ram.ranges()[main].name, PageTable::default());
    let wanted = tables.get(name).unwrap_or(&nothing);
    let mut other = instance.history.table(name).unwrap_or(&nothing).differing(wanted);
    if let Err(error) = instance.monitor.stop().map_err(Error::from).and_then(|()| instance.ram.scan()) {
        if instance.is_running() {
            instance.monitor.cont()?;
        }
        return Err(error);
    }
    end();
    other.union_with(&instance.ram.unpublished()[main]);
    let failed = |source| Error::Memory { bytes: instance.file.config.memory_bytes, source };
    let file = File::from(file.try_clone().map_err(failed)?);
    other.union_with(&emptied(&file, wanted, &other).map_err(failed)?);
    tracing::debug!(pages = other.len(), "memory goes back");
    bring_back(&file, store, wanted, &other)?;
    Ok(true)
}

/// Pages of disks are looked up and not read: there may be very many, and they come when the guest asks for them.
fn check(store: &Store, tables: &BTreeMap<RegionName, PageTable>) -> Result<()> {
    for (region, table) in tables {
        match region.kind() {
            RegionKind::Disk => {
                // Which looks for new packs, so that few are left.
                for (_, page) in table.iter().filter(|(_, page)| !store.contains(page)) {
                    store.read_page(&page, &mut [0; PAGE_SIZE])?;
                }
            }
            RegionKind::Ram | RegionKind::Boot => store.check_readable(table.iter(), threads())?,
        }
    }
    Ok(())
}

/// Pages that hold nothing although the snapshot has content for them, beside those of `other`. A page that was
/// punched out and then only read looks to the tracker as if nothing had happened: a guest may not care what is in a
/// page it gave away, but in the snapshot it may be in use.
fn emptied(file: &File, table: &PageTable, other: &PageSet) -> std::io::Result<PageSet> {
    let mut emptied = PageSet::new();
    let (mut beginning, mut content) = ([0; 64], [0; PAGE_SIZE]);
    for (page, _) in table.iter().filter(|(page, _)| !other.contains(*page)) {
        // Nearly every page that is not empty shows it at once.
        file.read_exact_at(&mut beginning, u64::from(page) * PAGE)?;
        if beginning == [0; 64] {
            file.read_exact_at(&mut content, u64::from(page) * PAGE)?;
            if is_zero(&content) {
                emptied.insert(page);
            }
        }
    }
    Ok(emptied)
}

fn bring_back(file: &File, store: &Store, table: &PageTable, pages: &PageSet) -> Result<()> {
    let failed = |source| Error::Memory { bytes: pages.len() * PAGE, source };
    let zero: PageSet = pages.iter().filter(|page| table.get(*page).is_zero_page()).collect();
    for run in zero.runs() {
        let (start, end) = (u64::from(run.start) * PAGE, u64::from(run.end) * PAGE);
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, end - start)
            .map_err(|errno| failed(errno.into()))?;
    }
    let pages = pages.iter().map(|page| (page, table.get(page)));
    Ok(store.read_pages(pages, threads(), &|page, bytes| file.write_all_at(bytes, u64::from(page) * PAGE))?)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(8)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};
    use watari_types::PageHash;

    use super::*;

    #[test]
    fn pages_that_lost_their_content_unseen_are_found() {
        let file = File::from(memfd_create("rewind", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(8 * PAGE).unwrap();
        let mut late = [0; PAGE_SIZE];
        late[PAGE_SIZE - 1] = 1;
        let mut table = PageTable::new();
        table.apply(&[1, 2, 4, 5, 6].map(|page| (page, PageHash::of(&late))).into_iter().collect());
        for (page, _) in table.iter() {
            file.write_all_at(&late, u64::from(page) * PAGE).unwrap();
        }
        for page in [2, 5] {
            file.write_all_at(&[0; PAGE_SIZE], page * PAGE).unwrap();
        }
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4 * PAGE, PAGE).unwrap();
        let known: PageSet = [5].into_iter().collect();
        assert_eq!(emptied(&file, &table, &known).unwrap().iter().collect::<Vec<_>>(), [2, 4]);
    }
}
