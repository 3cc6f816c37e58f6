//! Snapshots in the store: published, read back, and laid over each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use watari_types::{Delta, NodeId, PageHash, PageSet, PageTable, RegionDelta, RegionName, SnapshotId};

use crate::compress::compressor;
use crate::error::{At, Error};
use crate::files;
use crate::key::NodeKey;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::manifest::{self, Manifest, PackedState, Run};
use crate::regions::Regions;
use crate::snapshot::{Snapshot, SnapshotDraft};
use crate::store::Store;

impl Store {
    /// Writes the manifest of a snapshot; its id, and its length in bytes. `delta` is what changed since its parent, and
    /// `regions` what the machine holds with that. Nobody sees the snapshot until a ref names it
    /// ([`Refs::add`](crate::Refs::add)).
    ///
    /// Refused if a page that `delta` names is in no finished pack that stays while the lease lives, if the parent is not in the store, or if
    /// the parts contradict each other: what can be reached is always whole.
    pub fn publish(
        &self,
        draft: &SnapshotDraft,
        delta: &Delta,
        regions: &mut Regions,
        device_state: Option<&[u8]>,
        key: &NodeKey,
        lease: &Lease,
    ) -> Result<(SnapshotId, u64), Error> {
        self.check_pages(delta, lease)?;
        if let Some(parent) = draft.parent {
            self.check_snapshot(parent, lease)?;
        }
        let roots = regions.roots(&draft.regions).map_err(Error::BadDraft)?;
        let packed = device_state.map(|state| self.pack_state(state)).transpose()?;
        let (id, bytes) = manifest::encode(draft, delta, roots, packed, key)?;
        let file = self.layout().new_file()?;
        file.write_at(&bytes, 0)?;
        file.publish(&self.layout().snapshot(id))?;
        regions.published(id);
        Ok((id, bytes.len() as u64))
    }

    fn check_pages(&self, delta: &Delta, lease: &Lease) -> Result<(), Error> {
        let missing =
            || delta.values().flat_map(RegionDelta::iter).find(|(_, page)| !self.keeps(page, lease));
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
        self.read_manifest(id, |path| Manifest::read_header(self.layout(), path, id))
    }

    /// The node that made a snapshot: it says so itself, and its signature proves it. Reads all of the manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the signature is not that node's.
    pub fn signer(&self, id: SnapshotId) -> Result<NodeId, Error> {
        self.manifest(id)?.signer()
    }

    /// The snapshot's device state, if it has one.
    pub fn device_state(&self, id: SnapshotId) -> Result<Option<Vec<u8>>, Error> {
        self.manifest(id)?.device_state()
    }

    /// What every region of the machine held at that snapshot. Takes time in proportion to that, however long the history
    /// is: a bounded number of deltas is laid over the trees of an older snapshot.
    ///
    /// Trees that are damaged are passed over as long as there are deltas before them.
    pub fn regions(&self, id: SnapshotId) -> Result<Regions, Error> {
        self.refresh()?;
        let (mut later, mut found, mut damage) = (Vec::new(), Regions::default(), None);
        for snapshot in self.line(id) {
            let snapshot = snapshot.map_err(|error| damage.take().unwrap_or(error))?;
            if self.has_trees(&snapshot) {
                // What its header says its trees are counts only if all of it is what it is named after.
                let checked = self.manifest(snapshot.id).map(|manifest| manifest.snapshot());
                match checked.and_then(|snapshot| self.read_trees(&snapshot)) {
                    Ok(trees) => {
                        let trees_of = Some(snapshot.id);
                        found = Regions { tables: trees.clone(), trees, trees_of, ..found };
                        break;
                    }
                    Err(error) => {
                        tracing::warn!("{error}");
                        damage.get_or_insert(error);
                    }
                }
            }
            later.push(snapshot);
        }
        for snapshot in later.iter().rev() {
            found = self.with_delta_of(snapshot, found)?;
        }
        if let Some(newest) = later.first() {
            found.check(newest).map_err(|what| Error::damaged(&self.layout().snapshot(id), what))?;
        }
        Ok(found)
    }

    /// What the regions hold at a snapshot, of what they held at its parent.
    fn with_delta_of(&self, snapshot: &Snapshot, before: Regions) -> Result<Regions, Error> {
        let manifest = self.manifest(snapshot.id)?;
        let mut delta = Delta::new();
        for (name, runs) in manifest.deltas()? {
            let table = before.tables.get(name).cloned().unwrap_or_default();
            delta.insert(name.clone(), pages_of(&runs, &table));
        }
        Ok(before.after(&delta, &snapshot.draft.regions))
    }

    /// What every region of the machine held at that snapshot, page by page.
    pub fn page_tables(&self, id: SnapshotId) -> Result<BTreeMap<RegionName, PageTable>, Error> {
        Ok(self.regions(id)?.tables)
    }

    /// The pages of each region that may not be the same in two snapshots: what changed in either since the newest
    /// one that both descend from. Takes time in proportion to those changes, however long the history before; where that
    /// is not kept as far, in proportion to what they hold.
    pub fn changed_between(
        &self,
        one: SnapshotId,
        other: SnapshotId,
    ) -> Result<BTreeMap<RegionName, PageSet>, Error> {
        let mut changed: BTreeMap<RegionName, PageSet> = BTreeMap::new();
        let apart = match self.apart(one, other) {
            Err(Error::MissingSnapshot { snapshot, .. }) if ![one, other].contains(&snapshot) => {
                return Ok(self.regions(one)?.differing(&self.regions(other)?));
            }
            apart => apart?,
        };
        for id in apart {
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
                Some(Snapshot { id, .. }) => {
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

    /// A snapshot and those it descends from, the newest first.
    pub(crate) fn line(&self, id: SnapshotId) -> impl Iterator<Item = Result<Snapshot, Error>> + '_ {
        let (mut next, mut seen) = (Some(id), HashSet::new());
        std::iter::from_fn(move || {
            let id = next.take()?;
            // Headers are read without checking the id, which is what makes a circle impossible.
            if !seen.insert(id) {
                return Some(Err(Error::damaged(&self.layout().snapshot(id), "it is its own ancestor")));
            }
            Some(self.snapshot(id).inspect(|snapshot| next = snapshot.draft.parent))
        })
    }

    /// Reads a manifest and checks it against its id.
    pub(crate) fn manifest(&self, id: SnapshotId) -> Result<Manifest, Error> {
        self.read_manifest(id, |path| Manifest::read(self.layout(), path, id))
    }

    /// Reads a manifest where it is, condemned or not.
    fn read_manifest<T>(&self, id: SnapshotId, read: impl Fn(&Path) -> Result<T, Error>) -> Result<T, Error> {
        let layout = self.layout();
        // It may be put aside or brought back between two looks.
        for path in [layout.snapshot(id), layout.condemned_snapshot(id), layout.snapshot(id)] {
            match read(&path) {
                Err(e) if e.is_gone() => {}
                done => return done,
            }
        }
        Err(self.missing_snapshot(id))
    }

    /// Fails unless the snapshot's manifest is there, and stays for as long as the lease lives. If it was put aside since
    /// the lease began it is brought back: it is about to be named, and those who come later need to find it too.
    pub(crate) fn check_snapshot(&self, id: SnapshotId, lease: &Lease) -> Result<(), Error> {
        let layout = self.layout();
        let path = layout.snapshot(id);
        if layout.may_shrink() && !layout.has(&path)? && lease.saves(id) {
            files::move_to(&layout.condemned_snapshot(id), &path)?;
        }
        if layout.has(&path)? { Ok(()) } else { Err(self.missing_snapshot(id)) }
    }

    fn missing_snapshot(&self, snapshot: SnapshotId) -> Error {
        Error::MissingSnapshot { snapshot, store: self.layout().root.clone() }
    }
}

/// The manifests in a folder of a store.
pub(crate) fn manifests_in(layout: &Layout, folder: &Path) -> Result<Vec<(SnapshotId, PathBuf)>, Error> {
    let id = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".snap")?.parse().ok();
    Ok(layout.list(folder)?.into_iter().filter_map(|path| Some((id(&path)?, path))).collect())
}

/// Runs page by page, as changes of `table`: zero pages that become zero again are left out, so it takes time in proportion
/// to what changed, and not to what is said to have.
fn pages_of(runs: &[Run<'_>], table: &PageTable) -> RegionDelta {
    let mut pages = Vec::new();
    for run in runs {
        match *run {
            Run::Zero { first, count } => {
                let end = u32::try_from(u64::from(first) + count).unwrap_or(u32::MAX);
                let zeros = table.runs(first..end).into_iter().flatten();
                pages.extend(zeros.map(|page| (page, PageHash::ZERO_PAGE)));
            }
            Run::Data { first, hashes } => {
                pages.extend((first..=u32::MAX).zip(hashes.iter().map(|hash| PageHash(*hash))));
            }
        }
    }
    pages.into_iter().collect()
}
