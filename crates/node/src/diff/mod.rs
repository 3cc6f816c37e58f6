//! How two snapshots differ: pages by region, and on disks files.
//!
//! ```text
//!   page tables of both ──► pages that differ ─────────────────────┐
//!   disks of both, read from the store ──► partitions ──► files ───┴──► which files differ
//! ```
//!
//! Regions are compared by their page tables alone. Of disks only those are read that differ, of these only partitions
//! that do, and of these what `watari-fs` needs to name the files. No disk is extracted, and no snapshot needs to run.
//!
//! What a disk holds is what the guest had written to it by then: what was in its page cache only is not seen, and is part
//! of the difference of memory. Journals are played back in memory.

mod disk;
mod files;
mod snapshot_disk;

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{ComparedInfo, Difference, RegionDifference};
use crate::node::{Node, OnProgress};
use crate::{Error, Result};
use disk::Disk;
use files::Room;
use snapshot_disk::Pages;
use watari_keeper::protocol::Progress;
use watari_store::Snapshot;
use watari_types::{PAGE_SIZE, PageSet, PageTable, RegionKind, RegionName, SnapshotId};

/// A snapshot and what its regions hold.
struct Compared {
    snapshot: Snapshot,
    tables: BTreeMap<RegionName, PageTable>,
}

impl Compared {
    fn info(&self) -> ComparedInfo {
        let draft = &self.snapshot.draft;
        ComparedInfo {
            id: self.snapshot.id,
            name: draft.machine_name.clone(),
            generation: draft.generation,
            created_unix_ms: draft.created_unix_ms,
        }
    }

    /// A region's size, if it is there.
    fn bytes(&self, name: &RegionName) -> Option<u64> {
        self.snapshot.draft.regions.iter().find(|region| region.name == *name).map(|region| region.bytes)
    }

    fn table(&self, name: &RegionName) -> PageTable {
        self.tables.get(name).cloned().unwrap_or_default()
    }
}

impl Node {
    /// How the snapshot that `rev` names differs from the one that `from` does, or from its parent, or else from nothing.
    pub(crate) fn diff(&self, from: Option<&str>, rev: &str, progress: OnProgress) -> Result<Difference> {
        progress(Progress { step: "reading the snapshots".to_owned(), done: 0, total: 0 });
        let after = self.resolve(rev)?.id;
        let before = match from {
            Some(from) => Some(self.resolve(from)?.id),
            None => self.kept_parent(rev, after)?,
        };
        let load = |id| -> Result<Compared> {
            Ok(Compared { snapshot: self.store.snapshot(id)?, tables: self.store.page_tables(id)? })
        };
        let (before, after) = (before.map(load).transpose()?, load(after)?);
        let pages = Pages::new(&self.store);
        let mut room = Room::default();
        let (mut regions, mut disks) = (Vec::new(), Vec::new());
        for name in names(before.as_ref(), &after) {
            let Some((region, changed)) = region(&name, before.as_ref(), &after) else { continue };
            regions.push(region);
            if name.kind() == RegionKind::Disk {
                let disk = |of: &Compared| Some(Disk::new(&pages, of.table(&name), of.bytes(&name)?));
                let sides = [before.as_ref().and_then(disk), disk(&after)];
                disks.push(disk::compare(&name, &sides, &changed, &mut room, progress));
            }
        }
        Ok(Difference { before: before.as_ref().map(Compared::info), after: after.info(), regions, disks })
    }

    /// The snapshot that the one `rev` names follows, if it follows one.
    ///
    /// # Errors
    /// [`Error::BadRevision`] if that is kept no more.
    fn kept_parent(&self, rev: &str, id: SnapshotId) -> Result<Option<SnapshotId>> {
        let Some(parent) = self.store.snapshot(id)?.draft.parent else { return Ok(None) };
        match self.store.snapshot(parent) {
            Ok(_) => Ok(Some(parent)),
            Err(watari_store::Error::MissingSnapshot { .. }) => Err(Error::BadRevision {
                rev: rev.to_owned(),
                problem: "the snapshot it follows is kept no more".to_owned(),
                hint: format!("name the one to compare it with: `watari diff OTHER {rev}`"),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

/// The regions that either of the two has.
fn names(before: Option<&Compared>, after: &Compared) -> BTreeSet<RegionName> {
    let names = |of: &Compared| {
        of.snapshot.draft.regions.iter().map(|region| region.name.clone()).collect::<Vec<_>>()
    };
    before.map(names).unwrap_or_default().into_iter().chain(names(after)).collect()
}

/// How a region differs, and where; `None` if it does not.
fn region(
    name: &RegionName,
    before: Option<&Compared>,
    after: &Compared,
) -> Option<(RegionDifference, PageSet)> {
    let table = |of: Option<&Compared>| of.map(|of| of.table(name)).unwrap_or_default();
    let changed = table(Some(after)).differing(&table(before));
    let (bytes_before, bytes_after) = (before.and_then(|before| before.bytes(name)), after.bytes(name));
    if changed.is_empty() && bytes_before == bytes_after {
        return None;
    }
    let changed_pages = changed.len();
    let name = name.to_string();
    let changed_bytes = changed_pages * PAGE_SIZE as u64;
    Some((RegionDifference { name, bytes_before, bytes_after, changed_pages, changed_bytes }, changed))
}
