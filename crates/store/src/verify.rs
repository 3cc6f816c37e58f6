//! Is everything still what was written? The one place where every page is hashed again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use watari_types::{ErrorReport, MachineId, PAGE_SIZE, Page, PageHash, SnapshotId, levels_for, names_in};

use crate::error::{At, Error};
use crate::manifest::{Manifest, Run};
use crate::pack::{Decoder, Pack, PackId, broken, names_of};
use crate::packs::MOST_MOVES;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// How far verifying has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Pages hashed so far.
    pub pages_done: u64,
    /// Pages to be hashed in all.
    pub pages_total: u64,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Manifests that were checked.
    pub snapshots_checked: u64,
    /// Pages that were hashed.
    pub pages_checked: u64,
    /// What is not as it was written, by path; empty if all is well.
    pub damaged: Vec<Damage>,
}

/// A file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Damage {
    /// `file` is named where the error does not name one itself.
    fn new(file: &Path, error: &Error) -> Damage {
        match error {
            Error::Damaged { path, what } => Damage { path: path.clone(), what: what.clone() },
            other => Damage { path: file.to_owned(), what: ErrorReport::chain(other) },
        }
    }
}

impl Store {
    /// Checks what `machine`'s refs reach, or everything: each ref, each manifest's id, signature and device
    /// state, that all pages it names are there, and, on all cores, each frame and each page of it.
    ///
    /// Damage is no error but what the report is for. `progress` is called from several threads.
    pub fn verify(
        &self,
        machine: Option<MachineId>,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<VerifyReport, Error> {
        // So that nothing it finds named goes away before it gets there; it may be put aside.
        let _lease = match self.lease() {
            // Nor does anything where nobody can write.
            Err(Error::ReadOnly { .. }) => self.refresh().map(|()| None)?,
            lease => Some(lease?),
        };
        let mut walk = Walk {
            store: self,
            seen: HashSet::new(),
            nodes: HashMap::new(),
            frames: BTreeMap::new(),
            damaged: Vec::new(),
        };
        for machine in machine.map_or_else(|| self.machines(), |machine| Ok(vec![machine]))? {
            walk.machine(machine)?;
        }
        let Walk { seen, mut frames, mut damaged, .. } = walk;
        if machine.is_none() {
            let packs = self.packs().all();
            frames.extend(packs.iter().filter(|pack| !pack.is_condemned).flat_map(frames_of));
        }
        let unreadable = self.packs().unreadable();
        damaged.extend(unreadable.iter().map(|error| Damage::new(&self.layout().packs(), error)));
        let check =
            FrameCheck::new(self, frames.into_iter().map(|((_, frame), pack)| (pack, frame)).collect());
        damaged.append(&mut check.run(progress).at("start decompressing", &self.layout().root)?);
        damaged.sort();
        damaged.dedup();
        let pages_checked = check.done.into_inner();
        Ok(VerifyReport { snapshots_checked: seen.len() as u64, pages_checked, damaged })
    }
}

fn frames_of(pack: &Arc<Pack>) -> impl Iterator<Item = ((PackId, u32), Arc<Pack>)> {
    (0..pack.frames().len() as u32).map(|frame| ((pack.id, frame), Arc::clone(pack)))
}

/// From the refs to the frames: everything that can be reached, each thing once.
struct Walk<'a> {
    store: &'a Store,
    seen: HashSet<SnapshotId>,
    /// What is wrong with a node, so many levels above the pages of a region, or below it.
    nodes: HashMap<(PageHash, u32), Option<String>>,
    frames: BTreeMap<(PackId, u32), Arc<Pack>>,
    damaged: Vec<Damage>,
}

impl Walk<'_> {
    fn machine(&mut self, machine: MachineId) -> Result<(), Error> {
        let folder = self.store.layout().refs(machine);
        for found in self.store.refs(machine).read_all()? {
            let mut next = match found {
                Ok(id) => Some((id, folder.clone())),
                Err(e) => {
                    self.damaged.push(Damage::new(&folder, &e));
                    None
                }
            };
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
                let blamed = if matches!(e, Error::MissingSnapshot { .. }) { named_by } else { &path };
                self.damaged.push(Damage::new(blamed, &e));
                return None;
            }
        };
        if let Err(e) = manifest.signer() {
            self.damaged.push(Damage::new(&path, &e));
        }
        if let Err(e) = manifest.device_state().and_then(|_| self.pages(&manifest, &path)) {
            self.damaged.push(Damage::new(&path, &e));
        }
        let snapshot = manifest.snapshot();
        // With its trees it needs no other.
        if self.trees(&snapshot, &path) { None } else { snapshot.draft.parent.map(|parent| (parent, path)) }
    }

    /// Checks that the trees of a snapshot are whole; whether it has any.
    fn trees(&mut self, snapshot: &Snapshot, path: &Path) -> bool {
        if !self.store.has_trees(snapshot) {
            return false;
        }
        for region in &snapshot.draft.regions {
            let root = snapshot.roots.get(&region.name).copied().unwrap_or(PageHash::ZERO_PAGE);
            if let Some(what) = self.node(root, levels_for(region.pages())) {
                let what = format!("of the tree of {}, {what}", region.name);
                self.damaged.push(Damage { path: path.to_owned(), what });
            }
        }
        true
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
            self.damaged.push(Damage { path: path.to_owned(), what });
        }
        Ok(())
    }
}

/// Frames being checked by several threads.
struct FrameCheck<'a> {
    store: &'a Store,
    frames: Vec<(Arc<Pack>, u32)>,
    next: AtomicUsize,
    done: AtomicU64,
    total: u64,
}

impl<'a> FrameCheck<'a> {
    fn new(store: &'a Store, frames: Vec<(Arc<Pack>, u32)>) -> FrameCheck<'a> {
        let total = frames.iter().map(|(pack, frame)| u64::from(pack.frames()[*frame as usize].pages)).sum();
        FrameCheck { store, frames, next: AtomicUsize::new(0), done: AtomicU64::new(0), total }
    }

    /// Checks all frames; what is wrong with them. Fails only if there is no memory to begin with.
    fn run(&self, progress: &(dyn Fn(VerifyProgress) + Sync)) -> io::Result<Vec<Damage>> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let damaged = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| self.work(progress, &damaged))).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(damaged.into_inner())
    }

    /// Does something with a pack, and again if it has been moved meanwhile.
    fn wherever<T>(
        &self,
        pack: &Arc<Pack>,
        mut work: impl FnMut(&Arc<Pack>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut present = Arc::clone(pack);
        for _ in 0..MOST_MOVES {
            match work(&present) {
                Err(e) if e.is_gone() => {
                    self.store.refresh()?;
                    present = self.store.packs().get(pack.id).unwrap_or(present);
                }
                done => return done,
            }
        }
        work(&present)
    }

    /// Checks that a frame is what was written, and holds the pages the index says.
    fn frame(
        &self,
        decoder: &mut Decoder,
        pack: &Arc<Pack>,
        number: u32,
        names: &[PageHash],
    ) -> Result<(), Error> {
        let content = decoder.decode_checked(pack, number)?;
        let frame = &pack.frames()[number as usize];
        let (pages, _) = content.pages.as_chunks();
        let mut completed: Page;
        for (slot, (page, name)) in pages.iter().zip(names_of(frame, names)).enumerate() {
            let page = match content.bases.get(slot) {
                None => page,
                Some(base) => {
                    completed = *page;
                    self.store.complete(&mut completed, &PageHash(*base), pack, number)?;
                    &completed
                }
            };
            if PageHash::of(page) != *name {
                return Err(broken(pack, frame, "holds other pages than the index says"));
            }
        }
        Ok(())
    }

    fn work(
        &self,
        progress: &(dyn Fn(VerifyProgress) + Sync),
        damaged: &Mutex<Vec<Damage>>,
    ) -> io::Result<()> {
        let mut decoder = Decoder::new()?;
        let note = |pack: &Pack, e: Error| damaged.lock().push(Damage::new(&pack.path, &e));
        // Of the pack that was looked at last: all frames of a pack follow each other.
        let mut last: Option<(PackId, Option<Vec<PageHash>>)> = None;
        while let Some((pack, frame)) = self.frames.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let (_, names) = match last.take().filter(|(id, _)| *id == pack.id) {
                Some(known) => last.insert(known),
                None => {
                    let names = self.wherever(pack, |pack| pack.names());
                    last.insert((pack.id, names.map_err(|e| note(pack, e)).ok()))
                }
            };
            if let Some(names) = names {
                self.wherever(pack, |pack| self.frame(&mut decoder, pack, *frame, names))
                    .unwrap_or_else(|e| note(pack, e));
            }
            let pages = u64::from(pack.frames()[*frame as usize].pages);
            let pages_done = self.done.fetch_add(pages, Ordering::Relaxed) + pages;
            progress(VerifyProgress { pages_done, pages_total: self.total });
        }
        Ok(())
    }
}
