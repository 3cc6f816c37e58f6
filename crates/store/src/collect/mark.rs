//! What refs reach: manifests, and pages by where they lie.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use watari_types::{MachineId, PAGE_SIZE, PageHash, RegionName, SnapshotId, levels_for, names_in};

use crate::error::{At, Error};
use crate::manifest::Run;
use crate::pack::{Decoder, Group, Kind, Pack, PackId};
use crate::packs::Place;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Some pages of a pack, by position.
struct Bits(Vec<u64>);

impl Bits {
    fn none_of(pack: &Pack) -> Bits {
        Bits(vec![0; (pack.pages as usize).div_ceil(64)])
    }

    fn insert(&mut self, position: u32) {
        self.0[position as usize / 64] |= 1 << (position % 64);
    }

    fn remove(&mut self, position: u32) {
        self.0[position as usize / 64] &= !(1 << (position % 64));
    }

    fn contains(&self, position: u32) -> bool {
        self.0[position as usize / 64] & (1 << (position % 64)) != 0
    }
}

/// Which pages of a pack are reached.
pub(crate) struct Reached {
    pub(super) pack: Arc<Pack>,
    all: Bits,
    /// Nodes of trees,
    nodes: Bits,
    /// and what the newest snapshots hold.
    newest: Bits,
}

impl Reached {
    pub(super) fn nothing_of(pack: Arc<Pack>) -> Reached {
        let none = || Bits::none_of(&pack);
        let (all, nodes, newest) = (none(), none(), none());
        Reached { pack, all, nodes, newest }
    }

    /// The whole pack but for the pages at some positions.
    pub(crate) fn all_but(pack: Arc<Pack>, positions: impl Iterator<Item = u32>) -> Reached {
        let pages = pack.pages;
        let mut reached = Reached::nothing_of(pack);
        (0..pages).for_each(|position| reached.all.insert(position));
        positions.for_each(|position| reached.all.remove(position));
        reached
    }

    pub(super) fn contains(&self, position: u32) -> bool {
        self.all.contains(position)
    }

    /// What the page at `position` lies best together with.
    pub(super) fn group(&self, position: u32) -> Group {
        Group { is_node: self.nodes.contains(position), is_newest: self.newest.contains(position) }
    }

    /// How many are.
    pub(super) fn len(&self) -> u64 {
        self.all.0.iter().map(|word| u64::from(word.count_ones())).sum()
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
    /// The root of each machine's region that was followed last: what is below both it and the next one is reached already.
    last: HashMap<(MachineId, RegionName), PageHash>,
    /// Packs of which what their pages are changes of is reached.
    based: HashSet<PackId>,
}

impl<'a> Mark<'a> {
    pub(super) fn new(store: &'a Store) -> Mark<'a> {
        let (snapshots, packs, nodes, last) = Default::default();
        Mark { store, snapshots, packs, nodes, last, based: HashSet::new() }
    }

    /// Follows those of these snapshots that were not followed yet. Packs that stay anyway need what their pages are changes
    /// of. `progress` hears how many snapshots are done.
    ///
    /// # Errors
    /// Something on the way cannot be read: then it is not known what is garbage.
    pub(super) fn follow(
        &mut self,
        kept: &BTreeSet<SnapshotId>,
        stays: &dyn Fn(&Pack) -> bool,
        progress: &dyn Fn(u64, u64),
    ) -> Result<(), Error> {
        let new = kept.iter().filter(|id| !self.snapshots.contains(id));
        let mut new: Vec<Snapshot> = new.map(|id| self.store.snapshot(*id)).collect::<Result<_, _>>()?;
        // So that each holds much of what the one before it does.
        new.sort_by_key(|snapshot| (snapshot.draft.config.id, snapshot.draft.created_unix_ms));
        for (number, snapshot) in (1..).zip(&new) {
            self.snapshot(snapshot.id)?;
            progress(number, new.len() as u64);
        }
        self.bases(stays)
    }

    /// Forgets where pages were reached now that these packs are `gone`: what was reached of them is in new ones, and the rest
    /// stays where it is. Only of packs that were condemned before, and are still needed, it is kept in mind.
    pub(super) fn forget_places(&mut self, gone: &BTreeSet<PackId>) {
        self.packs.retain(|id, reached| reached.pack.is_condemned && !gone.contains(id));
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
            let key = (snapshot.draft.config.id, region.name.clone());
            let before = self.last.get(&key).copied().unwrap_or(PageHash::ZERO_PAGE);
            match self.tree(root, before, levels_for(region.pages())) {
                // The root has outlived another snapshot that held the same.
                Err(Error::MissingPage { .. }) if snapshot.draft.parent.is_some() => return Ok(false),
                followed => followed?,
            }
            self.last.insert(key, root);
        }
        Ok(true)
    }

    /// A node and what is below it, of which it has most in common with what is below `before`.
    fn tree(&mut self, name: PageHash, before: PageHash, level: u32) -> Result<(), Error> {
        self.page(&name)?;
        if level == 0 || name.is_zero_page() || self.nodes.contains(&(name, level)) {
            return Ok(());
        }
        if let Some((reached, position)) = self.reached(&name) {
            reached.nodes.insert(position);
        }
        let (mut node, mut former) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
        self.store.read_page(&name, &mut node)?;
        // Otherwise it is as if nothing were below it.
        if self.nodes.contains(&(before, level)) {
            self.store.read_page(&before, &mut former)?;
        }
        for (below, before) in
            names_in(&node).zip(names_in(&former)).filter(|(below, before)| below != before)
        {
            self.tree(below, before, level - 1)?;
        }
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
        reached.all.insert(position);
    }

    /// Where a page is that was reached.
    fn reached(&mut self, name: &PageHash) -> Option<(&mut Reached, u32)> {
        let place = self.store.find(name)?;
        Some((self.packs.get_mut(&place.pack.id)?, place.position()))
    }

    /// Notes which pages these snapshots hold, or what these are changes of. What cannot be read is not noted.
    pub(super) fn note_newest(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), Error> {
        for id in snapshots {
            for table in self.store.page_tables(*id)?.values() {
                for (_, page) in table.iter() {
                    if let Some((reached, position)) = self.reached(&page) {
                        reached.newest.insert(position);
                    }
                }
            }
        }
        let mut decoder = Decoder::new().at("start decompressing", &self.store.layout().root)?;
        let mut bases = Vec::new();
        for reached in self.packs.values() {
            for (number, frame) in (0..).zip(reached.pack.frames()) {
                let is_newest = |position: &u32| reached.newest.contains(*position);
                let positions = frame.first_page..frame.first_page + frame.pages;
                if frame.kind == Kind::Changes && positions.clone().any(|position| is_newest(&position)) {
                    let names = decoder.bases(&reached.pack, number)?;
                    let newest = positions.zip(names).filter(|(position, _)| is_newest(position));
                    bases.extend(newest.map(|(_, name)| PageHash(*name)));
                }
            }
        }
        for base in bases {
            if let Some((reached, position)) = self.reached(&base) {
                reached.newest.insert(position);
            }
        }
        Ok(())
    }

    /// What pages are changes of, in every pack that is not dead or `stays` anyway: also of pages that nothing needs now,
    /// because as long as they are there a writer may find them and count on them.
    fn bases(&mut self, stays: &dyn Fn(&Pack) -> bool) -> Result<(), Error> {
        let mut decoder = Decoder::new().at("start decompressing", &self.store.layout().root)?;
        loop {
            let mut packs = self.store.packs().all();
            packs.retain(|pack| {
                (stays(pack) || self.packs.contains_key(&pack.id)) && self.based.insert(pack.id)
            });
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
