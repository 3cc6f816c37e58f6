//! Which packs there are, and in which of them a page is.
//!
//! The index tells where a page may be by the beginning of its name; the rest of the name is in the pack. So a pack is
//! opened when a page is first looked for in it, and checked as a whole if the page is not there. One that is found to be
//! damaged is set aside: its pages count as missing.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use watari_types::PageHash;

use crate::error::Error;
use crate::index::{Candidate, Known, NewPacks, PageIndex};
use crate::layout::Layout;
use crate::names::Names;
use crate::pack::{Pack, PackId};

/// A page may be in another pack by the time it is looked for, and by the time it is looked for there.
pub(crate) const MOST_MOVES: usize = 3;

/// Where the content of one page is.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) pack: Arc<Pack>,
    /// Which of the pack's frames.
    pub(crate) frame: u32,
    /// The how manieth page of the frame.
    pub(crate) slot: u32,
}

impl Place {
    pub(crate) fn of(pack: &Arc<Pack>, position: u32) -> Place {
        let (frame, slot) = pack.frame_of(position);
        Place { pack: Arc::clone(pack), frame, slot }
    }

    /// The how manieth page of the pack.
    pub(crate) fn position(&self) -> u32 {
        self.pack.frames()[self.frame as usize].first_page + self.slot
    }

    /// Equal for pages of one frame only; all frames of a pack come one after the other.
    pub(crate) fn frame_key(&self) -> (PackId, u32) {
        (self.pack.id, self.frame)
    }

    /// Whether the page's bytes are there, and not only how it differs from another.
    pub(crate) fn is_whole(&self) -> bool {
        self.pack.is_whole(self.frame)
    }

    /// Of several places the best counts: what others are changes of must be found whole, and otherwise what is
    /// condemned gives way.
    fn rank(&self) -> (bool, bool) {
        (self.is_whole(), !self.pack.is_condemned)
    }
}

/// The packs of a store.
pub(crate) struct Packs {
    layout: Layout,
    index: RwLock<PageIndex>,
    names: Names,
    /// Packs that could not be opened: what they hold counts as not there.
    unreadable: Mutex<BTreeMap<PackId, PathBuf>>,
}

impl Packs {
    pub(crate) fn open(layout: &Layout) -> Result<Packs, Error> {
        let packs = Packs {
            layout: layout.clone(),
            index: RwLock::new(PageIndex::load(layout)),
            names: Names::new(),
            unreadable: Mutex::default(),
        };
        packs.refresh()?;
        if layout.may_shrink() && packs.index.read().is_worth_saving() {
            packs.save();
        }
        Ok(packs)
    }

    /// Notices the packs that others have published, moved or removed.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        let on_disk = self.on_disk()?;
        let (new, gone) = {
            let index = self.index.read();
            // A pack that another thread has just finished may be newer than the listing.
            let is_gone = |pack: &&Arc<Known>| {
                !on_disk.contains_key(&pack.id) && !self.layout.has(&self.path_of(pack)).unwrap_or(true)
            };
            let gone: HashSet<PackId> = index.packs().iter().filter(is_gone).map(|pack| pack.id).collect();
            let new: Vec<(PackId, bool)> = on_disk
                .iter()
                .map(|(id, is_condemned)| (*id, *is_condemned))
                .filter(|(id, _)| !index.has(*id))
                .collect();
            (new, gone)
        };
        self.unreadable.lock().retain(|id, _| on_disk.contains_key(id));
        let opened = self.open_new(new);
        let mut index = self.index.write();
        if !gone.is_empty() {
            index.retain(|pack| !gone.contains(&pack.id));
        }
        on_disk.iter().for_each(|(id, is_condemned)| index.note(*id, *is_condemned));
        index.insert(opened);
        Ok(())
    }

    /// All packs, each with whether it is condemned.
    fn on_disk(&self) -> Result<BTreeMap<PackId, bool>, Error> {
        let layout = &self.layout;
        let mut found = BTreeMap::new();
        // Twice, so that none is missed that is put aside or brought back just now.
        for (folder, is_condemned) in
            [(layout.packs(), false), (layout.condemned(), true), (layout.packs(), false)]
        {
            for path in layout.list(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let id = name.and_then(|name| name.strip_suffix(".pack")).and_then(PackId::parse);
                if let Some(id) = id {
                    let known = found.entry(id).or_insert(is_condemned);
                    *known = *known && is_condemned;
                }
            }
        }
        Ok(found)
    }

    fn open_new(&self, ids: Vec<(PackId, bool)>) -> NewPacks {
        let mut packs = NewPacks::default();
        for (id, is_condemned) in ids {
            let path = self.layout.pack_in(id, is_condemned);
            match packs.open(&self.layout, &path, id, is_condemned) {
                Ok(()) => drop(self.unreadable.lock().remove(&id)),
                Err(e) if e.is_gone() => {}
                Err(e) => self.set_aside(id, is_condemned, &e),
            }
        }
        packs
    }

    /// Adds a pack that was just written.
    pub(crate) fn add(&self, pack: Pack, names: &[PageHash]) {
        let mut index = self.index.write();
        // One of the same content may be on its way out.
        index.note(pack.id, pack.is_condemned);
        index.insert(NewPacks::of(pack, names));
    }

    fn path_of(&self, pack: &Known) -> PathBuf {
        self.layout.pack_in(pack.id, pack.is_condemned)
    }

    /// Where the page is.
    pub(crate) fn find(&self, page: &PageHash) -> Option<Place> {
        self.look_for(page, |candidates| self.best_of(candidates, page)).flatten()
    }

    /// Whether a page is there whose name begins like this one's.
    pub(crate) fn seem_to_hold(&self, page: &PageHash) -> bool {
        let is_any_there = |candidates: &[Candidate]| {
            candidates.iter().try_fold(false, |found, candidate| {
                Ok(found || self.with(&candidate.pack, |_| Ok(()))?.is_some())
            })
        };
        self.look_for(page, is_any_there).unwrap_or(false)
    }

    /// What `judge` makes of where the page may be. Looks which packs there are, and again, when one is not where it was.
    fn look_for<T>(&self, page: &PageHash, judge: impl Fn(&[Candidate]) -> Result<T, Error>) -> Option<T> {
        for _ in 0..MOST_MOVES {
            let candidates = self.index.read().candidates(page);
            match judge(&candidates) {
                Ok(found) => return Some(found),
                Err(_) => self.refresh().ok()?,
            }
        }
        None
    }

    /// The best of these places, if any is the page's. Fails if a pack is gone.
    fn best_of(&self, candidates: &[Candidate], page: &PageHash) -> Result<Option<Place>, Error> {
        let mut best: Option<Place> = None;
        for Candidate { pack, position } in candidates {
            let position = *position;
            let place = self.with(pack, |pack| {
                if self.names.is(page, pack, position)? {
                    return Ok(Some(Place::of(pack, position)));
                }
                // Its name begins like another's, one time in four hundred thousand, or the pack is damaged.
                pack.check().map(|()| None)
            })?;
            best = best.into_iter().chain(place.flatten()).max_by_key(Place::rank);
        }
        Ok(best)
    }

    /// Does something with a pack, unless that cannot be read: then it is set aside. Fails if it is gone.
    pub(crate) fn with<T>(
        &self,
        known: &Known,
        work: impl FnOnce(&Arc<Pack>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.opened(known).and_then(|pack| work(&pack)) {
            Ok(done) => Ok(Some(done)),
            Err(e) if e.is_gone() => Err(e),
            Err(e) => {
                self.set_aside(known.id, known.is_condemned, &e);
                Ok(None)
            }
        }
    }

    fn opened(&self, known: &Known) -> Result<Arc<Pack>, Error> {
        if let Some(pack) = known.opened.get() {
            return Ok(Arc::clone(pack));
        }
        let path = self.path_of(known);
        let pack = Pack::open(&self.layout, &path, known.id, known.is_condemned, known.head)?;
        Ok(Arc::clone(known.opened.get_or_init(|| Arc::new(pack))))
    }

    /// Until it can be opened, there is nothing in that pack.
    pub(crate) fn set_aside(&self, id: PackId, is_condemned: bool, error: &Error) {
        if self.unreadable.lock().insert(id, self.layout.pack_in(id, is_condemned)).is_none() {
            tracing::warn!("{error}");
        }
        let mut index = self.index.write();
        if index.has(id) {
            index.retain(|pack| pack.id != id);
        }
    }

    /// Where pages may be, as far as is known now.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, PageIndex> {
        self.index.read()
    }

    /// What is read of packs to tell whether they are there.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Sorts pages, so that those that lie together follow each other.
    pub(crate) fn sort_as_they_lie(&self, pages: &mut [(u32, PageHash)]) {
        let index = self.index.read();
        pages.sort_by_cached_key(|(_, page)| index.order(page));
    }

    /// All of them, opened and checked, but for those that cannot be.
    pub(crate) fn all(&self) -> Vec<Arc<Pack>> {
        let known = self.index.read().packs().to_vec();
        known
            .iter()
            .filter_map(|known| {
                self.with(known, |pack| pack.check().map(|()| Arc::clone(pack))).ok().flatten()
            })
            .collect()
    }

    /// The pack of that name, if it is known and can be opened.
    pub(crate) fn get(&self, id: PackId) -> Option<Arc<Pack>> {
        let known = self.index.read().packs().iter().find(|known| known.id == id).cloned()?;
        self.with(&known, |pack| Ok(Arc::clone(pack))).ok().flatten()
    }

    pub(crate) fn count(&self) -> usize {
        self.index.read().packs().len()
    }

    /// Those that are to go away.
    pub(crate) fn condemned(&self) -> HashSet<PackId> {
        let index = self.index.read();
        index.packs().iter().filter(|pack| pack.is_condemned).map(|pack| pack.id).collect()
    }

    /// Writes down where all pages are, for those who open the store after this. Nothing depends on it, so it never fails.
    pub(crate) fn save(&self) {
        let (unsaved, saved) = {
            let index = self.index.read();
            if index.unsaved() == 0 {
                return;
            }
            (index.unsaved(), index.save(&self.layout))
        };
        match saved {
            Ok(()) => self.index.write().was_saved(unsaved),
            Err(error) => tracing::debug!("the index is not saved: {error}"),
        }
    }

    /// Whether the pack is there and cannot be opened.
    pub(crate) fn is_unreadable(&self, id: PackId) -> bool {
        self.unreadable.lock().contains_key(&id)
    }

    /// Each pack that cannot be opened, and what is wrong with it.
    pub(crate) fn unreadable(&self) -> Vec<(PathBuf, Error)> {
        let packs = self.unreadable.lock().clone();
        packs
            .into_iter()
            .filter_map(|(id, path)| {
                let error = Pack::open_checked(&self.layout, &path, id, false, &mut |_| ()).err()?;
                Some((path, error))
            })
            .collect()
    }
}
