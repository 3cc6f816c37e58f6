//! The store as a whole: which packs there are, and pages by name.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use watari_types::{PAGE_SIZE, Page, PageHash};

use crate::elsewhere::Files;
use crate::error::Error;
use crate::frames::FrameCache;
use crate::index::{PageIndex, Place};
use crate::layout::Layout;
use crate::lease::Lease;
use crate::pack::{Pack, PackId, PackWriter, add, broken};

/// A page may be in another pack by the time it is read, and by the time it is read there.
const MOST_MOVES: usize = 3;

/// An open store. Cheap to clone; all clones share one index and one cache. Any number of processes may have
/// the same folder open.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    layout: Layout,
    index: RwLock<PageIndex>,
    /// Packs whose index could not be read: what they hold counts as not there.
    unreadable: Mutex<BTreeMap<PackId, PathBuf>>,
    frames: FrameCache,
}

impl Store {
    /// Opens the store in the folder `root`, creating what is missing, and removes what processes that died
    /// left unfinished.
    ///
    /// A pack that is damaged does not keep the rest from being used: its pages count as missing, and
    /// [`Store::verify`] reports it.
    pub fn open(root: &Path) -> Result<Store, Error> {
        Store::of(Layout::create(root)?)
    }

    /// Opens a store in a folder to read it; nothing is written there.
    ///
    /// # Errors
    /// [`Error::NoStore`] if there is none.
    pub fn open_fixed(root: &Path) -> Result<Store, Error> {
        Store::of(Layout::fixed(root)?)
    }

    /// Opens a store that is not in a folder; `root` is what it is called to people. It is begun if there is none, unless it
    /// is only to be read. Nothing is ever removed there.
    pub fn open_elsewhere(root: &Path, files: Arc<dyn Files>, is_fixed: bool) -> Result<Store, Error> {
        Store::of(Layout::elsewhere(root, files, is_fixed)?)
    }

    fn of(layout: Layout) -> Result<Store, Error> {
        let store = Store(Arc::new(Inner {
            layout,
            index: RwLock::default(),
            unreadable: Mutex::default(),
            frames: FrameCache::new(),
        }));
        store.refresh()?;
        Ok(store)
    }

    /// Notices the packs that others have published or removed since the store was opened or last refreshed.
    pub fn refresh(&self) -> Result<(), Error> {
        let on_disk = self.packs_on_disk()?;
        let (new, gone) = {
            let index = self.0.index.read();
            let is_gone = |pack: &&Arc<Pack>| match on_disk.get(&pack.id) {
                Some(is_condemned) => *is_condemned != pack.is_condemned,
                // A pack that another thread has just finished may be newer than the listing.
                None => !self.0.layout.has(&pack.path).unwrap_or(true),
            };
            let gone: HashSet<PackId> = index.packs().iter().filter(is_gone).map(|pack| pack.id).collect();
            let is_new = |id: &PackId| !index.has(*id) || gone.contains(id);
            let new: Vec<(PackId, bool)> = on_disk.into_iter().filter(|(id, _)| is_new(id)).collect();
            (new, gone)
        };
        let opened = self.open_packs(new)?;
        let mut index = self.0.index.write();
        if !gone.is_empty() {
            index.retain(|pack| !gone.contains(&pack.id));
        }
        opened.into_iter().for_each(|pack| index.insert(pack));
        Ok(())
    }

    /// All packs, each with whether it is condemned.
    fn packs_on_disk(&self) -> Result<BTreeMap<PackId, bool>, Error> {
        let layout = &self.0.layout;
        let mut found = BTreeMap::new();
        // Twice, so that none is missed that is put aside or brought back just now.
        for (folder, is_condemned) in
            [(layout.packs(), false), (layout.condemned(), true), (layout.packs(), false)]
        {
            for path in self.0.layout.list(&folder)? {
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

    fn open_packs(&self, ids: Vec<(PackId, bool)>) -> Result<Vec<Arc<Pack>>, Error> {
        let mut packs = Vec::with_capacity(ids.len());
        let mut unreadable = BTreeMap::new();
        for (id, is_condemned) in ids {
            let layout = &self.0.layout;
            let path = if is_condemned { layout.condemned_pack(id) } else { layout.pack(id) };
            match Pack::open(layout, &path, id, is_condemned) {
                Ok(pack) => packs.push(Arc::new(pack)),
                Err(e @ (Error::Damaged { .. } | Error::NewerFormat { .. })) => {
                    if !self.0.unreadable.lock().contains_key(&id) {
                        tracing::warn!("{e}");
                    }
                    unreadable.insert(id, path);
                }
                Err(e) if e.is_gone() => {}
                Err(e) => return Err(e),
            }
        }
        *self.0.unreadable.lock() = unreadable;
        Ok(packs)
    }

    /// Whether the store holds the page for as long as the lease lives. Always true for the zero page.
    pub(crate) fn keeps(&self, page: &PageHash, lease: &Lease) -> bool {
        page.is_zero_page() || self.find(page).is_some_and(|place| lease.covers(&place))
    }

    /// Whether the store is known to hold the page. Always true for the zero page. Does not look for packs
    /// that others have published since the last [`Store::refresh`].
    pub fn contains(&self, page: &PageHash) -> bool {
        page.is_zero_page() || self.0.index.read().contains(page)
    }

    /// Reads one page. Looks for new packs once before it says that the page is missing.
    ///
    /// What is read is protected by the checksum of its frame; it is not hashed again.
    pub fn read_page(&self, page: &PageHash, into: &mut Page) -> Result<(), Error> {
        if page.is_zero_page() {
            into.fill(0);
            return Ok(());
        }
        for _ in 0..MOST_MOVES {
            if let Some(place) = self.find(page) {
                match self.read_at(&place, into) {
                    Err(e) if e.is_gone() => {}
                    done => return done,
                }
            }
            self.refresh()?;
        }
        let place = self.find(page).ok_or_else(|| self.missing(page))?;
        self.read_at(&place, into)
    }

    fn read_at(&self, place: &Place, into: &mut Page) -> Result<(), Error> {
        match self.0.frames.read(place, into)? {
            Some(base) => self.complete(into, &base, &place.pack, place.frame),
            None => Ok(()),
        }
    }

    /// Makes a page of a change that `frame` of `pack` holds of the page `base`.
    pub(crate) fn complete(
        &self,
        change: &mut Page,
        base: &PageHash,
        pack: &Pack,
        frame: u32,
    ) -> Result<(), Error> {
        let place = self.find_whole(base)?.ok_or_else(|| {
            let frame = &pack.frames()[frame as usize];
            broken(pack, frame, format_args!("holds changes of page {base}, which is nowhere"))
        })?;
        let mut content = [0; PAGE_SIZE];
        self.0.frames.read(&place, &mut content)?;
        add(change, &content);
        Ok(())
    }

    /// Where a page is with its bytes. Looks for new packs once.
    pub(crate) fn find_whole(&self, page: &PageHash) -> Result<Option<Place>, Error> {
        let find = || self.find(page).filter(Place::is_whole);
        match find() {
            None => self.refresh().map(|()| find()),
            found => Ok(found),
        }
    }

    /// The page that a change of `page` is best stored as a change of, with its content: `page` itself, or if that
    /// is only there as a change, what it is a change of. So a page is never more than one step from its bytes.
    /// `None` if neither can be read or will stay, or the page is zero.
    pub(crate) fn base_for(&self, page: &PageHash, lease: &Lease) -> Option<(PageHash, Page)> {
        let mut content = [0; PAGE_SIZE];
        let place = self.find(page).filter(|place| lease.covers(place))?;
        match self.0.frames.read(&place, &mut content).ok()? {
            None => Some((*page, content)),
            Some(base) => {
                let place = self.find(&base).filter(|place| place.is_whole() && lease.covers(place))?;
                self.0.frames.read(&place, &mut content).ok()?;
                Some((base, content))
            }
        }
    }

    /// Begins a new pack. Pages that the lease covers will not be written again.
    pub fn new_pack(&self, lease: &Lease) -> Result<PackWriter, Error> {
        PackWriter::create(self.clone(), lease.clone())
    }

    /// How many packs are known.
    pub fn pack_count(&self) -> usize {
        self.0.index.read().packs().len()
    }

    /// The folder it is in.
    pub fn folder(&self) -> &Path {
        &self.0.layout.root
    }

    /// How many bytes the store occupies on its disk.
    pub fn bytes(&self) -> Result<u64, Error> {
        crate::files::occupied(&self.0.layout.root)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn find(&self, page: &PageHash) -> Option<Place> {
        self.0.index.read().find(page)
    }

    pub(crate) fn add_pack(&self, pack: Pack) {
        let mut index = self.0.index.write();
        // One of the same content may be on its way out.
        if index.packs().iter().any(|known| known.id == pack.id && known.is_condemned) {
            index.retain(|known| known.id != pack.id);
        }
        index.insert(Arc::new(pack));
    }

    pub(crate) fn packs(&self) -> Vec<Arc<Pack>> {
        self.0.index.read().packs().to_vec()
    }

    /// Whether the pack is there and its index cannot be read.
    pub(crate) fn is_unreadable(&self, id: PackId) -> bool {
        self.0.unreadable.lock().contains_key(&id)
    }

    /// What is wrong with each pack whose index cannot be read.
    pub(crate) fn unreadable_packs(&self) -> Vec<Error> {
        let packs = self.0.unreadable.lock().clone();
        packs
            .into_iter()
            .filter_map(|(id, path)| Pack::open(&self.0.layout, &path, id, false).err())
            .collect()
    }

    /// Why the page cannot be found: a damaged pack that may hold it is the better explanation.
    pub(crate) fn missing(&self, page: &PageHash) -> Error {
        let unreadable = self.unreadable_packs().into_iter().next();
        unreadable.unwrap_or_else(|| Error::MissingPage { page: *page, store: self.0.layout.root.clone() })
    }
}
