//! The machine's history as its keeper needs it: what the last snapshot held, page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use watari_disk::{Base, Source};
use watari_store::{Refs, Regions, Snapshot, Store};
use watari_types::{Generation, MachineId, PAGE_SIZE, PageTable, RegionName, SnapshotId};

use crate::record::Point;
use crate::{Error, Result};

/// What the machine's last snapshot held, and what the next one is called.
pub(crate) struct History {
    store: Store,
    machine: MachineId,
    base: Option<(Point, Snapshot)>,
    regions: Regions,
}

impl History {
    /// Loads the history of `machine` as seen from the snapshot its present state descends from.
    pub(crate) fn load(store: &Store, machine: MachineId, base: Option<Point>) -> Result<History> {
        let (base, regions) = match base {
            Some(point) => (Some((point, store.snapshot(point.id)?)), store.regions(point.id)?),
            None => (None, Regions::default()),
        };
        Ok(History { store: store.clone(), machine, base, regions })
    }

    /// The store behind it.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The machine's refs.
    pub(crate) fn refs(&self) -> Refs {
        self.store.refs(self.machine)
    }

    /// The snapshot that the machine's present state descends from.
    pub(crate) fn base(&self) -> Option<Point> {
        self.base.as_ref().map(|(point, _)| *point)
    }

    /// That snapshot's header.
    pub(crate) fn base_snapshot(&self) -> Option<&Snapshot> {
        self.base.as_ref().map(|(_, snapshot)| snapshot)
    }

    /// What every region held at that snapshot.
    pub(crate) fn regions(&self) -> &Regions {
        &self.regions
    }

    /// What every region held at any snapshot of the machine's.
    pub(crate) fn tables_at(&self, snapshot: SnapshotId) -> Result<BTreeMap<RegionName, PageTable>> {
        match self.base() {
            Some(base) if base.id == snapshot => Ok(self.regions.tables().clone()),
            _ => Ok(self.store.page_tables(snapshot)?),
        }
    }

    /// What `region` held at that snapshot.
    pub(crate) fn table(&self, region: &RegionName) -> Option<&PageTable> {
        self.regions.tables().get(region)
    }

    /// The number of the next snapshot: one more than any this machine ever had, on any branch.
    pub(crate) fn next_generation(&self) -> Result<Generation> {
        let newest = self.refs().newest()?;
        Ok(newest.unwrap_or_default().max(self.base().map_or(Generation(0), |p| p.generation)).next())
    }

    /// The branch of the next snapshot. A snapshot that does not follow the newest one starts a new branch.
    pub(crate) fn branch(&self, next: Generation) -> String {
        match &self.base {
            None => "main".to_owned(),
            Some((point, snapshot)) if point.generation.next() == next && !self.is_clone_of(snapshot) => {
                snapshot.draft.branch.clone()
            }
            Some((point, _)) => format!("{}-{next}", point.generation),
        }
    }

    fn is_clone_of(&self, snapshot: &Snapshot) -> bool {
        snapshot.draft.config.id != self.machine
    }

    /// Moves on to a snapshot that was just published, with what it holds.
    pub(crate) fn advance(&mut self, point: Point, regions: Regions) -> Result<()> {
        self.base = Some((point, self.store.snapshot(point.id)?));
        self.regions = regions;
        Ok(())
    }

    /// What a disk descends from, if that is a snapshot.
    pub(crate) fn disk_base(&self, region: &RegionName) -> Option<Base> {
        self.base().map(|point| Base { source: self.source(region), generation: point.generation })
    }

    /// The content of `region` at the base, for a disk that is not here yet.
    fn source(&self, region: &RegionName) -> Arc<dyn Source> {
        let table = self.table(region).cloned().unwrap_or_default();
        Arc::new(StoreSource { store: self.store.clone(), table })
    }
}

/// A region of a snapshot, read from the store.
pub struct StoreSource {
    store: Store,
    table: PageTable,
}

impl StoreSource {
    /// The content of `region` at `snapshot`.
    ///
    /// # Errors
    /// When the snapshot cannot be read, or has no such region.
    pub fn open(store: &Store, snapshot: SnapshotId, region: &RegionName) -> Result<StoreSource> {
        let table = store
            .page_tables(snapshot)?
            .remove(region)
            .ok_or_else(|| Error::NoRegion { snapshot, region: region.clone() })?;
        Ok(StoreSource { store: store.clone(), table })
    }
}

impl Source for StoreSource {
    fn read(&self, first: u32, into: &mut [u8]) -> std::io::Result<()> {
        for (page, bytes) in (first..).zip(into.as_chunks_mut::<PAGE_SIZE>().0) {
            self.store.read_page(&self.table.get(page), bytes).map_err(std::io::Error::other)?;
        }
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<std::ops::Range<u32>> {
        self.table.runs(first..end)
    }
}
