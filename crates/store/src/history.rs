//! Snapshots in the store: published, read back, and laid over each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;

use watari_types::{
    Delta, Generation, Generations, PageHash, PageSet, PageTable, RegionDelta, RegionName, SnapshotId,
};

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
        Ok(self.regions(id)?.into_iter().map(|(name, region)| (name, region.table)).collect())
    }

    /// What every region of the machine held at that snapshot, and when its pages changed last. Takes time in
    /// proportion to the whole history.
    pub fn regions(&self, id: SnapshotId) -> Result<BTreeMap<RegionName, RegionAt>, Error> {
        let newest = self.snapshot(id)?;
        let sizes: BTreeMap<_, _> =
            newest.draft.regions.iter().map(|region| (&region.name, region.pages())).collect();
        let mut regions: BTreeMap<RegionName, RegionAt> =
            sizes.keys().map(|name| ((*name).clone(), RegionAt::default())).collect();
        for (id, generation) in self.line(id).collect::<Result<Vec<_>, Error>>()?.into_iter().rev() {
            let manifest = self.manifest(id)?;
            for (name, runs) in manifest.deltas()? {
                if let (Some(region), Some(pages)) = (regions.get_mut(name), sizes.get(name)) {
                    runs.iter().for_each(|run| region.lay_over(run, *pages, generation));
                }
            }
        }
        Ok(regions)
    }

    /// The pages of each region that may not be the same in two snapshots: what changed in either since the newest
    /// one that both descend from. Takes time in proportion to those changes, however long the history before.
    pub fn changed_between(
        &self,
        one: SnapshotId,
        other: SnapshotId,
    ) -> Result<BTreeMap<RegionName, PageSet>, Error> {
        let mut changed: BTreeMap<RegionName, PageSet> = BTreeMap::new();
        for id in self.apart(one, other)? {
            let manifest = self.manifest(id)?;
            for (name, runs) in manifest.deltas()? {
                let pages = changed.entry(name.clone()).or_default();
                runs.iter().for_each(|run| pages.insert_range(run.pages()));
            }
        }
        Ok(changed)
    }

    /// The snapshots that only one of the two is or descends from.
    fn apart(&self, one: SnapshotId, other: SnapshotId) -> Result<Vec<SnapshotId>, Error> {
        let mut lines = [self.line(one), self.line(other)];
        let mut passed: [HashMap<SnapshotId, usize>; 2] = Default::default();
        let mut is_over = [false; 2];
        // In turn, so that neither is followed far beyond where they meet.
        for turn in [0, 1].into_iter().cycle() {
            match lines[turn].next().transpose()? {
                Some((id, _)) => {
                    if let Some(meeting) = passed[1 - turn].get(&id).copied() {
                        passed[1 - turn].retain(|_, position| *position < meeting);
                        break;
                    }
                    let position = passed[turn].len();
                    passed[turn].insert(id, position);
                }
                None => is_over[turn] = true,
            }
            if is_over == [true; 2] {
                break;
            }
        }
        Ok(passed.into_iter().flat_map(HashMap::into_keys).collect())
    }

    /// A snapshot and those it descends from, the newest first, each with its generation.
    fn line(&self, id: SnapshotId) -> impl Iterator<Item = Result<(SnapshotId, Generation), Error>> + '_ {
        let (mut next, mut seen) = (Some(id), HashSet::new());
        std::iter::from_fn(move || {
            let id = next.take()?;
            // Headers are read without checking the id, which is what makes a circle impossible.
            if !seen.insert(id) {
                return Some(Err(Error::damaged(&self.layout().snapshot(id), "it is its own ancestor")));
            }
            Some(self.snapshot(id).map(|snapshot| {
                next = snapshot.draft.parent;
                (id, snapshot.draft.generation)
            }))
        })
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

/// A region at one snapshot.
#[derive(Clone, Default)]
pub struct RegionAt {
    /// What it holds.
    pub table: PageTable,
    /// When its pages changed last.
    pub generations: Generations,
}

impl RegionAt {
    /// Lays a run over a region of `pages` pages, in time that does not depend on how many zero pages become zero again.
    fn lay_over(&mut self, run: &Run<'_>, pages: u64, generation: Generation) {
        match *run {
            Run::Zero { first, count } => {
                let end = u32::try_from((u64::from(first) + count).min(pages)).unwrap_or(u32::MAX);
                for run in self.table.runs(first..end) {
                    self.generations.record(generation, run.clone());
                    run.for_each(|page| self.table.set(page, PageHash::ZERO_PAGE));
                }
            }
            Run::Data { first, hashes } => {
                let left = pages.saturating_sub(u64::from(first)).min(hashes.len() as u64) as u32;
                self.generations.record(generation, first..first.saturating_add(left));
                self.table.set_run(first, &hashes[..left as usize]);
            }
        }
    }
}
