//! Snapshots in the store: published, read back, and laid over each other.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;

use watari_types::{Delta, PageHash, PageTable, RegionDelta, RegionName, SnapshotId};

use crate::compress::compressor;
use crate::error::{At, Error};
use crate::files::NewFile;
use crate::key::NodeKey;
use crate::manifest::{self, Manifest, PackedState, Run};
use crate::snapshot::{Snapshot, SnapshotDraft};
use crate::store::Store;

impl Store {
    /// Writes the manifest of a snapshot; its id, and its length in bytes. Nobody sees the snapshot until a ref
    /// names it ([`Refs::add`](crate::Refs::add)).
    ///
    /// Refused if a page that `delta` names is in no finished pack, if the parent is not in the store, or if
    /// the parts contradict each other: what can be reached is always whole.
    pub fn publish(
        &self,
        draft: &SnapshotDraft,
        delta: &Delta,
        device_state: Option<&[u8]>,
        key: &NodeKey,
    ) -> Result<(SnapshotId, u64), Error> {
        self.check_pages(delta)?;
        if let Some(parent) = draft.parent {
            self.check_snapshot(parent)?;
        }
        let packed = device_state.map(|state| self.pack_state(state)).transpose()?;
        let (id, bytes) = manifest::encode(draft, delta, packed, key)?;
        let file = NewFile::create(&self.layout().tmp())?;
        file.write_at(&bytes, 0)?;
        file.publish(&self.layout().snapshot(id))?;
        Ok((id, bytes.len() as u64))
    }

    fn check_pages(&self, delta: &Delta) -> Result<(), Error> {
        let missing = || delta.values().flat_map(RegionDelta::iter).find(|(_, page)| !self.contains(page));
        if missing().is_none() {
            return Ok(());
        }
        self.refresh()?;
        missing().map_or(Ok(()), |(_, page)| Err(self.missing(&page)))
    }

    fn pack_state(&self, state: &[u8]) -> Result<PackedState, Error> {
        let stored = compressor()
            .and_then(|mut zstd| zstd.compress(state))
            .at("compress the device state for", &self.layout().root)?;
        Ok(PackedState { bytes: state.len() as u64, stored })
    }

    /// What a snapshot says about itself. Reads only the head of its manifest.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, Error> {
        Manifest::read_header(&self.layout().snapshot(id), id).map_err(|e| self.or_missing(e, id))
    }

    /// What changed from the snapshot's parent to it.
    pub fn delta(&self, id: SnapshotId) -> Result<Delta, Error> {
        let manifest = self.manifest(id)?;
        manifest.check_zero_pages()?;
        let deltas = manifest.deltas()?;
        Ok(deltas.into_iter().map(|(region, runs)| (region.clone(), pages_of(&runs))).collect())
    }

    /// The snapshot's device state, if it has one.
    pub fn device_state(&self, id: SnapshotId) -> Result<Option<Vec<u8>>, Error> {
        self.manifest(id)?.device_state()
    }

    /// What every region of the machine held at that snapshot: all deltas from the first one on, laid over each
    /// other.
    pub fn page_tables(&self, id: SnapshotId) -> Result<BTreeMap<RegionName, PageTable>, Error> {
        let newest = self.snapshot(id)?;
        let mut line = vec![id];
        let mut parent = newest.draft.parent;
        let mut seen = HashSet::from([id]);
        while let Some(id) = parent {
            // Headers are read without checking the id, which is what makes a circle impossible.
            if !seen.insert(id) {
                return Err(Error::damaged(&self.layout().snapshot(id), "it is its own ancestor"));
            }
            line.push(id);
            parent = self.snapshot(id)?.draft.parent;
        }
        let sizes: BTreeMap<_, _> =
            newest.draft.regions.iter().map(|region| (&region.name, region.pages())).collect();
        let mut tables: BTreeMap<RegionName, PageTable> =
            sizes.keys().map(|name| ((*name).clone(), PageTable::new())).collect();
        for id in line.into_iter().rev() {
            let manifest = self.manifest(id)?;
            for (region, runs) in manifest.deltas()? {
                if let (Some(table), Some(pages)) = (tables.get_mut(region), sizes.get(region)) {
                    runs.iter().for_each(|run| lay_over(table, run, *pages));
                }
            }
        }
        Ok(tables)
    }

    /// Reads a manifest and checks it against its id.
    pub(crate) fn manifest(&self, id: SnapshotId) -> Result<Manifest, Error> {
        Manifest::read(&self.layout().snapshot(id), id).map_err(|e| self.or_missing(e, id))
    }

    /// Fails unless the snapshot's manifest is there.
    pub(crate) fn check_snapshot(&self, id: SnapshotId) -> Result<(), Error> {
        let path = self.layout().snapshot(id);
        match fs::metadata(&path) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(self.missing_snapshot(id)),
            Err(e) => Err(Error::io("look at", &path, e)),
        }
    }

    fn or_missing(&self, error: Error, id: SnapshotId) -> Error {
        if error.is_gone() { self.missing_snapshot(id) } else { error }
    }

    fn missing_snapshot(&self, snapshot: SnapshotId) -> Error {
        Error::MissingSnapshot { snapshot, store: self.layout().root.clone() }
    }
}

fn pages_of(runs: &[Run<'_>]) -> RegionDelta {
    let mut pages = Vec::new();
    for run in runs {
        match *run {
            Run::Zero { first, count } => {
                pages.extend((first..=u32::MAX).take(count as usize).map(|page| (page, PageHash::ZERO_PAGE)));
            }
            Run::Data { first, hashes } => {
                pages.extend((first..=u32::MAX).zip(hashes.iter().map(|hash| PageHash(*hash))));
            }
        }
    }
    pages.into_iter().collect()
}

/// Lays a run over the table of a region of `pages` pages, in time that does not depend on how many zero pages
/// become zero again.
fn lay_over(table: &mut PageTable, run: &Run<'_>, pages: u64) {
    match *run {
        Run::Zero { first, count } => {
            let end = u32::try_from((u64::from(first) + count).min(pages)).unwrap_or(u32::MAX);
            for page in table.runs(first..end).into_iter().flatten() {
                table.set(page, PageHash::ZERO_PAGE);
            }
        }
        Run::Data { first, hashes } => {
            let left = pages.saturating_sub(u64::from(first)).min(hashes.len() as u64) as usize;
            table.set_run(first, &hashes[..left]);
        }
    }
}
