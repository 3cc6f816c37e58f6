//! From the refs to the frames.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watari_types::{ErrorReport, MachineId, PAGE_SIZE, PageHash, SnapshotId, levels_for, names_in};

use super::{Damage, Findings};
use crate::error::Error;
use crate::manifest::{Manifest, Run};
use crate::pack::{Pack, PackId};
use crate::snapshot::Snapshot;
use crate::store::Store;

/// The frames that hold what is needed, by pack and number.
pub(super) type Frames = BTreeMap<(PackId, u32), Arc<Pack>>;

/// Everything that can be reached, each thing once.
pub(super) struct Walk<'a> {
    store: &'a Store,
    /// What refs name, each with the folder it is in.
    named: Vec<(SnapshotId, PathBuf)>,
    seen: HashSet<SnapshotId>,
    /// What is wrong with a node, so many levels above the pages of a region, or below it.
    nodes: HashMap<(PageHash, u32), Option<String>>,
    frames: Frames,
    found: Findings,
}

impl<'a> Walk<'a> {
    pub(super) fn new(store: &'a Store) -> Walk<'a> {
        let (named, seen, nodes) = (Vec::new(), HashSet::new(), HashMap::new());
        Walk { store, named, seen, nodes, frames: Frames::new(), found: Findings::default() }
    }

    pub(super) fn into_findings(self) -> (Frames, Findings) {
        (self.frames, Findings { snapshots_checked: self.seen.len() as u64, ..self.found })
    }

    /// Reads all refs of a machine. What they name is followed later, once all packs are known that were there by now.
    pub(super) fn machine(&mut self, machine: MachineId) -> Result<(), Error> {
        let refs = self.store.refs(machine);
        for generation in refs.generations()? {
            let named = refs.get(generation);
            if named.is_err() {
                self.found.refs.push((machine, generation));
            }
            self.name(machine, named);
        }
        for tag in refs.tag_names()? {
            self.name(machine, refs.tagged(&tag));
        }
        self.name(machine, refs.head().map(|head| head.map(|head| head.id)));
        Ok(())
    }

    fn name(&mut self, machine: MachineId, named: Result<Option<SnapshotId>, Error>) {
        let folder = self.store.layout().refs(machine);
        match named {
            Ok(id) => self.named.extend(id.map(|id| (id, folder))),
            Err(e) => self.found.damaged.push(Damage::new(&folder, &e)),
        }
    }

    /// Checks the snapshots that were named, and those before them that it takes to read them.
    pub(super) fn follow(&mut self) -> Result<(), Error> {
        self.store.refresh()?;
        for named in std::mem::take(&mut self.named) {
            let mut next = Some(named);
            while let Some((id, named_by)) = next {
                next = match self.seen.insert(id) {
                    true => self.snapshot(id, &named_by),
                    false => None,
                };
            }
        }
        Ok(())
    }

    /// Checks one manifest; its parent is to follow. `named_by` is what leads to it.
    fn snapshot(&mut self, id: SnapshotId, named_by: &Path) -> Option<(SnapshotId, PathBuf)> {
        let path = self.store.layout().snapshot(id);
        let manifest = match self.store.manifest(id) {
            Ok(manifest) => manifest,
            Err(e) => {
                if matches!(e, Error::MissingSnapshot { .. } | Error::Damaged { .. }) {
                    self.found.manifests.insert(id);
                }
                let blamed = if matches!(e, Error::MissingSnapshot { .. }) { named_by } else { &path };
                self.found.damaged.push(Damage::new(blamed, &e));
                return None;
            }
        };
        if let Err(e) = manifest.signer() {
            self.found.manifests.insert(id);
            self.found.damaged.push(Damage::new(&path, &e));
        }
        if let Err(e) = manifest.device_state().and_then(|_| self.pages(&manifest, &path)) {
            self.found.damaged.push(Damage::new(&path, &e));
        }
        let snapshot = manifest.snapshot();
        // With its trees it needs no other; without them, or a part of them, it is read by way of those before it.
        if self.trees(&snapshot, &path) {
            return None;
        }
        let parent = snapshot.draft.parent?;
        if let Err(Error::MissingSnapshot { .. }) = self.store.snapshot(parent) {
            // Either will do.
            let roots = snapshot.roots.values().filter(|root| !root.is_zero_page());
            self.found.missing.extend(roots.filter(|root| self.store.find(root).is_none()));
        }
        Some((parent, path))
    }

    /// Checks that the trees of a snapshot are whole; whether it has any, and they are.
    fn trees(&mut self, snapshot: &Snapshot, path: &Path) -> bool {
        if !self.store.has_trees(snapshot) {
            return false;
        }
        let mut are_whole = true;
        for region in &snapshot.draft.regions {
            let root = snapshot.roots.get(&region.name).copied().unwrap_or(PageHash::ZERO_PAGE);
            if let Some(what) = self.node(root, levels_for(region.pages())) {
                let what = format!("of the tree of {}, {what}", region.name);
                self.found.damaged.push(Damage { path: path.to_owned(), what });
                are_whole = false;
            }
        }
        are_whole
    }

    /// Looks once at everything below a name that is so many levels above the pages of its region. What is wrong there.
    fn node(&mut self, name: PageHash, level: u32) -> Option<String> {
        if name.is_zero_page() {
            return None;
        }
        // A page comes up once for each node that names it, and only nodes are many times the same.
        if level == 0 {
            return self.look_at(name, level);
        }
        if let Some(known) = self.nodes.get(&(name, level)) {
            return known.clone();
        }
        let found = self.look_at(name, level);
        self.nodes.insert((name, level), found.clone());
        found
    }

    fn look_at(&mut self, name: PageHash, level: u32) -> Option<String> {
        let Some(place) = self.store.find(&name) else {
            self.found.missing.insert(name);
            return Some(format!("page {name} is in no readable pack"));
        };
        self.frames.insert((place.pack.id, place.frame), place.pack);
        if level == 0 {
            return None;
        }
        let mut node = [0; PAGE_SIZE];
        match self.store.read_page(&name, &mut node) {
            Err(e) => Some(ErrorReport::chain(&e)),
            Ok(()) if PageHash::of(&node) != name => {
                Some(format!("page {name} is not what it is named after"))
            }
            // All of it, so that every frame is looked at; one flaw stands for all.
            Ok(()) => {
                names_in(&node).filter_map(|below| self.node(below, level - 1)).reduce(|first, _| first)
            }
        }
    }

    fn pages(&mut self, manifest: &Manifest, path: &Path) -> Result<(), Error> {
        let mut missing = Vec::new();
        for (_, runs) in manifest.deltas()? {
            for run in runs {
                let Run::Data { hashes, .. } = run else { continue };
                for page in hashes.iter().map(|hash| PageHash(*hash)).filter(|page| !page.is_zero_page()) {
                    match self.store.find(&page) {
                        Some(place) => drop(self.frames.insert((place.pack.id, place.frame), place.pack)),
                        None => missing.push(page),
                    }
                }
            }
        }
        if let [first, ..] = missing[..] {
            let what =
                format!("{} of its pages are in no readable pack, the first is {first}", missing.len());
            self.found.damaged.push(Damage { path: path.to_owned(), what });
            self.found.missing.extend(missing);
        }
        Ok(())
    }
}
