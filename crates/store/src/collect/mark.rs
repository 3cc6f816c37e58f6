//! What refs reach: manifests, and pages by where they lie.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use watari_types::{PAGE_SIZE, PageHash, SnapshotId, levels_for, names_in};

use crate::error::{At, Error};
use crate::manifest::Run;
use crate::pack::{Decoder, Kind, Pack, PackId};
use crate::packs::Place;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Which pages of a pack are reached.
pub(crate) struct Reached {
    pub(super) pack: Arc<Pack>,
    bits: Vec<u64>,
}

impl Reached {
    pub(super) fn nothing_of(pack: Arc<Pack>) -> Reached {
        let bits = vec![0; (pack.pages as usize).div_ceil(64)];
        Reached { pack, bits }
    }

    /// The whole pack but for the pages at some positions.
    pub(crate) fn all_but(pack: Arc<Pack>, positions: impl Iterator<Item = u32>) -> Reached {
        let pages = pack.pages;
        let mut reached = Reached::nothing_of(pack);
        (0..pages).for_each(|position| reached.insert(position));
        for position in positions {
            reached.bits[position as usize / 64] &= !(1 << (position % 64));
        }
        reached
    }

    fn insert(&mut self, position: u32) {
        self.bits[position as usize / 64] |= 1 << (position % 64);
    }

    pub(super) fn contains(&self, position: u32) -> bool {
        self.bits[position as usize / 64] & (1 << (position % 64)) != 0
    }

    /// How many are.
    pub(super) fn len(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// From snapshots to pages, everything once.
pub(super) struct Mark<'a> {
    store: &'a Store,
    /// Manifests that are needed.
    pub(super) snapshots: HashSet<SnapshotId>,
    /// Packs with pages that are.
    pub(super) packs: BTreeMap<PackId, Reached>,
    /// Nodes below which everything is reached, each with how many levels above the pages it is. A page of the same content
    /// may be there as well, and leads nowhere.
    nodes: HashSet<(PageHash, u32)>,
}

impl<'a> Mark<'a> {
    /// Follows these snapshots. Packs that stay anyway need what their pages are changes of. `progress` hears how many
    /// snapshots are done.
    ///
    /// # Errors
    /// Something on the way cannot be read: then it is not known what is garbage.
    pub(super) fn of(
        store: &'a Store,
        kept: &BTreeSet<SnapshotId>,
        stays: &dyn Fn(&Pack) -> bool,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Mark<'a>, Error> {
        let (snapshots, packs, nodes) = (HashSet::new(), BTreeMap::new(), HashSet::new());
        let mut mark = Mark { store, snapshots, packs, nodes };
        for (number, id) in (1..).zip(kept) {
            mark.snapshot(*id)?;
            progress(number, kept.len() as u64);
        }
        mark.bases(stays)?;
        Ok(mark)
    }

    /// A snapshot, and those before it whose lists it takes to read it.
    fn snapshot(&mut self, id: SnapshotId) -> Result<(), Error> {
        let mut next = Some(id);
        while let Some(id) = next.filter(|id| self.snapshots.insert(*id)) {
            let snapshot = self.store.snapshot(id)?;
            self.list(id)?;
            next = if self.has_trees(&snapshot)? { None } else { snapshot.draft.parent };
        }
        Ok(())
    }

    /// Whether the trees of all regions are there, and all they lead to; it is reached then.
    fn has_trees(&mut self, snapshot: &Snapshot) -> Result<bool, Error> {
        if !self.store.has_trees(snapshot) {
            return Ok(false);
        }
        for region in &snapshot.draft.regions {
            let root = snapshot.roots.get(&region.name).copied().unwrap_or(PageHash::ZERO_PAGE);
            match self.tree(root, levels_for(region.pages())) {
                // The root has outlived another snapshot that held the same.
                Err(Error::MissingPage { .. }) if snapshot.draft.parent.is_some() => return Ok(false),
                followed => followed?,
            }
        }
        Ok(true)
    }

    fn tree(&mut self, name: PageHash, level: u32) -> Result<(), Error> {
        self.page(&name)?;
        if level == 0 || name.is_zero_page() || self.nodes.contains(&(name, level)) {
            return Ok(());
        }
        let mut node = [0; PAGE_SIZE];
        self.store.read_page(&name, &mut node)?;
        names_in(&node).try_for_each(|below| self.tree(below, level - 1))?;
        self.nodes.insert((name, level));
        Ok(())
    }

    fn list(&mut self, id: SnapshotId) -> Result<(), Error> {
        let manifest = self.store.manifest(id)?;
        for (_, runs) in manifest.deltas()? {
            for run in runs {
                let Run::Data { hashes, .. } = run else { continue };
                hashes.iter().try_for_each(|hash| self.page(&PageHash(*hash)))?;
            }
        }
        Ok(())
    }

    /// Reaches a page.
    fn page(&mut self, name: &PageHash) -> Result<(), Error> {
        if name.is_zero_page() {
            return Ok(());
        }
        let mut place = self.store.find(name);
        if place.is_none() {
            // Of a snapshot that was published since.
            self.store.refresh()?;
            place = self.store.find(name);
        }
        self.place(place.ok_or_else(|| self.store.missing(name))?);
        Ok(())
    }

    fn place(&mut self, place: Place) {
        let position = place.position();
        let reached = self.packs.entry(place.pack.id).or_insert_with(|| Reached::nothing_of(place.pack));
        reached.insert(position);
    }

    /// What pages are changes of, in every pack that is not dead or `stays` anyway: also of pages that nothing needs now,
    /// because as long as they are there a writer may find them and count on them.
    fn bases(&mut self, stays: &dyn Fn(&Pack) -> bool) -> Result<(), Error> {
        let mut decoder = Decoder::new().at("start decompressing", &self.store.layout().root)?;
        let mut seen = HashSet::new();
        loop {
            let mut packs = self.store.packs().all();
            packs.retain(|pack| (stays(pack) || self.packs.contains_key(&pack.id)) && seen.insert(pack.id));
            if packs.is_empty() {
                return Ok(());
            }
            for pack in packs {
                self.bases_of(&pack, &mut decoder)?;
            }
        }
    }

    fn bases_of(&mut self, pack: &Arc<Pack>, decoder: &mut Decoder) -> Result<(), Error> {
        let frames = (0..).zip(pack.frames()).filter(|(_, frame)| frame.kind == Kind::Changes);
        for (number, frame) in frames {
            for (position, base) in (frame.first_page..).zip(decoder.bases(pack, number)?) {
                let is_needed = self.packs.get(&pack.id).is_some_and(|reached| reached.contains(position));
                match self.store.find_whole(&PageHash(*base))? {
                    Some(place) => self.place(place),
                    None if is_needed => return Err(self.store.missing(&PageHash(*base))),
                    None => tracing::warn!(
                        "{}: a page that nothing needs is a change of none",
                        pack.path.display()
                    ),
                }
            }
        }
        Ok(())
    }
}
