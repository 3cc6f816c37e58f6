//! A running machine is given up for one of its snapshots, and its memory is what the next run starts with.
//!
//! Memory that was not written since the last snapshot, and is the same in the snapshot wanted, stays as it is: how long
//! it takes depends on what changed, not on the machine's size. So first, while the guest runs, everything else that a resume
//! reads is checked: a machine that runs is not given up for a snapshot that is damaged. Then it is captured, unless what it
//! leaves behind is not wanted, and does not go on from that instant. What it has written meanwhile is checked, too, and only
//! then it is ended. Pages of memory that hold something else are emptied, and come from the store again
//! ([`arrival`](crate::arrival)).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use watari_qemu::MEMORY_PATH;
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageSet, PageTable, RegionKind, RegionName, SnapshotId, is_zero};

use crate::capture;
use crate::ground::open_in;
use crate::instance::Instance;
use crate::memory::{GuestMemory, threads};
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
/// be kept, then has the guest ended by `end`, and empties what its memory holds else, where it is the machine's own.
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
    let tables = instance.history.tables_at(snapshot)?;
    check_small_regions(&store, &tables)?;
    if instance.debt.is_some() {
        return give_up_unfinished(instance, &store, &tables, keep, end);
    }
    let mut disks = ReturningDisks { wanted: snapshot, tables: &tables, checked: BTreeMap::new() };
    disks.check(instance, &store)?;
    let mut memory = Returning::new(instance, &tables)?;
    memory.check(&store)?;
    let kept = keep.map(|message| capture::last_checkpoint(instance, message, progress)).transpose();
    let kept = kept.map_err(|error| Error::NotKept(Box::new(error)))?;
    let stopped = memory.stop_and_check(instance, &store);
    let checked = stopped.and_then(|pages| disks.check(instance, &store).map(|()| pages));
    let pages = checked.inspect_err(|_| {
        if instance.is_running()
            && let Err(error) = instance.monitor.cont()
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the guest stays held");
        }
    })?;
    end();
    // Nothing of what it was filled with may come in between.
    instance.arrival = None;
    let memory_is_ready = match &instance.memory {
        GuestMemory::Own(file) => {
            tracing::debug!(pages = pages.len(), "memory goes back");
            forget(file, &pages)?;
            true
        }
        GuestMemory::Shared(_) => false,
    };
    Ok(GivenUp { memory_is_ready, kept: kept.map(|done| Point { generation: done.generation, id: done.id }) })
}

/// The same for a machine that is not whole. What it holds is of no snapshot that is here; and it may be waiting for a page, and
/// answer nobody.
fn give_up_unfinished(
    instance: &mut Instance,
    store: &Store,
    tables: &BTreeMap<RegionName, PageTable>,
    keep: Option<&str>,
    end: impl FnOnce(),
) -> Result<GivenUp> {
    if keep.is_some() {
        instance.ensure_whole().map_err(|error| Error::NotKept(Box::new(error)))?;
    }
    for (_, table) in tables.iter().filter(|(region, _)| ram::is_main(region)) {
        store.check_readable(table.iter(), threads())?;
    }
    end();
    instance.debt = None;
    instance.arrival = None;
    Ok(GivenUp { memory_is_ready: false, kept: None })
}

/// Main memory that is to hold what a snapshot does.
struct Returning {
    /// Its place among the tracked ranges.
    range: usize,
    /// What it is to hold.
    table: PageTable,
    /// The pages that may hold something else.
    other: PageSet,
}

impl Returning {
    /// As far as is known while the guest runs on.
    fn new(instance: &Instance, tables: &BTreeMap<RegionName, PageTable>) -> Result<Returning> {
        let range = ram::main_memory(instance.ram.ranges())?;
        let table = tables.get(&instance.ram.ranges()[range].name).cloned().unwrap_or_default();
        let mut memory = Returning { range, table, other: PageSet::new() };
        memory.other = memory.different(instance);
        Ok(memory)
    }

    /// The pages that hold something else, as far as is known without a scan.
    fn different(&self, instance: &Instance) -> PageSet {
        if let GuestMemory::Shared(_) = &instance.memory {
            // It is left to the others who share it.
            return self.table.pages();
        }
        let name = &instance.ram.ranges()[self.range].name;
        let nothing = PageTable::default();
        let mut other = instance.history.table(name).unwrap_or(&nothing).differing(&self.table);
        other.union_with(&instance.ram.unpublished()[self.range]);
        other
    }

    fn check(&self, store: &Store) -> Result<()> {
        let pages = self.other.iter().map(|page| (page, self.table.get(page)));
        Ok(store.check_readable(pages, threads())?)
    }

    /// Holds the guest, finds all that is to come from the store, and checks what was not checked before.
    fn stop_and_check(&mut self, instance: &mut Instance, store: &Store) -> Result<PageSet> {
        instance.monitor.stop()?;
        instance.ram.scan()?;
        let mut all = self.different(instance);
        if let GuestMemory::Own(file) = &instance.memory {
            let failed = |source| Error::Memory { bytes: instance.file.config.memory_bytes, source };
            let file = File::from(file.try_clone().map_err(failed)?);
            all.union_with(&emptied(&file, &self.table, &all).map_err(failed)?);
        }
        let checked = std::mem::replace(&mut self.other, all.clone());
        self.other.subtract(&checked);
        self.check(store)?;
        Ok(all)
    }
}

/// Disks that are to hold what a snapshot does.
struct ReturningDisks<'a> {
    wanted: SnapshotId,
    /// What it holds.
    tables: &'a BTreeMap<RegionName, PageTable>,
    /// What was found in the store so far.
    checked: BTreeMap<RegionName, PageSet>,
}

impl ReturningDisks<'_> {
    /// Looks up what is to come from the store as things are now, but for what was found before. It is not read: there may
    /// be very many pages, and they come when the guest asks for them.
    fn check(&mut self, instance: &Instance, store: &Store) -> Result<()> {
        let base = instance.history.base();
        let differing = base.and_then(|base| store.changed_between(base.id, self.wanted).ok());
        for (index, disk) in instance.disks.iter().enumerate() {
            let name = RegionName::disk(index);
            let Some(table) = self.tables.get(&name) else { continue };
            let mut pages = match &differing {
                Some(differing) => differing.get(&name).cloned().unwrap_or_default(),
                // Then the disk is made anew.
                None => table.pages(),
            };
            pages.union_with(&disk.given_up());
            let checked = self.checked.entry(name).or_default();
            pages.subtract(checked);
            // Reading looks for new packs, so that few are left.
            for page in pages.iter().map(|page| table.get(page)).filter(|page| !store.contains(page)) {
                store.read_page(&page, &mut [0; PAGE_SIZE])?;
            }
            checked.union_with(&pages);
        }
        Ok(())
    }
}

/// All there is beside main memory and disks is read by a resume at once.
fn check_small_regions(store: &Store, tables: &BTreeMap<RegionName, PageTable>) -> Result<()> {
    let is_small = |region: &RegionName| region.kind() != RegionKind::Disk && !ram::is_main(region);
    let small = tables.iter().filter(|(region, _)| is_small(region));
    Ok(store.check_readable(small.flat_map(|(_, table)| table.iter()), threads())?)
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

/// Makes pages hold nothing.
fn forget(file: &OwnedFd, pages: &PageSet) -> Result<()> {
    for run in pages.runs() {
        let (start, end) = (u64::from(run.start) * PAGE, u64::from(run.end) * PAGE);
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, end - start)
            .map_err(|errno| Error::Memory { bytes: end - start, source: errno.into() })?;
    }
    Ok(())
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
