//! The store as a whole: which packs there are, and pages by name.

use std::path::Path;
use std::sync::Arc;

use watari_types::{PAGE_SIZE, Page, PageHash};

use crate::elsewhere::Files;
use crate::error::Error;
use crate::frames::FrameCache;
use crate::layout::Layout;
use crate::lease::Lease;
use crate::pack::{Pack, PackWriter, add, broken};
use crate::packs::{MOST_MOVES, Packs, Place};

/// An open store. Cheap to clone; all clones share one index and one cache. Any number of processes may have
/// the same folder open.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    layout: Layout,
    packs: Packs,
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
        let packs = Packs::open(&layout)?;
        Ok(Store(Arc::new(Inner { layout, packs, frames: FrameCache::new() })))
    }

    /// Notices the packs that others have published or removed since the store was opened or last refreshed.
    pub fn refresh(&self) -> Result<(), Error> {
        self.0.packs.refresh()
    }

    /// Whether the store holds the page for as long as the lease lives. Always true for the zero page.
    pub(crate) fn keeps(&self, page: &PageHash, lease: &Lease) -> bool {
        page.is_zero_page() || self.find(page).is_some_and(|place| lease.covers(&place))
    }

    /// Whether the store is known to hold the page, as far as the first 64 bits of its name tell, which is enough to look
    /// ahead: of ten million pages, one that is not there seems to be with a probability of 1 in 10¹². Always true for
    /// the zero page. Does not look for packs that others have published since the last [`Store::refresh`].
    pub fn contains(&self, page: &PageHash) -> bool {
        page.is_zero_page() || self.0.packs.seem_to_hold(page)
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
        let place = self.base(base, pack, frame)?;
        let mut content = [0; PAGE_SIZE];
        self.0.frames.read(&place, &mut content)?;
        add(change, &content);
        Ok(())
    }

    /// Where the page is that `frame` of `pack` holds a change of.
    pub(crate) fn base(&self, base: &PageHash, pack: &Pack, frame: u32) -> Result<Place, Error> {
        self.find_whole(base)?.ok_or_else(|| {
            let frame = &pack.frames()[frame as usize];
            broken(pack, frame, format_args!("holds changes of page {base}, which is nowhere"))
        })
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
        self.0.packs.count()
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

    pub(crate) fn packs(&self) -> &Packs {
        &self.0.packs
    }

    pub(crate) fn find(&self, page: &PageHash) -> Option<Place> {
        self.0.packs.find(page)
    }

    /// Why the page cannot be found: a damaged pack that may hold it is the better explanation.
    pub(crate) fn missing(&self, page: &PageHash) -> Error {
        let unreadable = self.0.packs.unreadable().into_iter().next();
        let missing = || Error::MissingPage { page: *page, store: self.0.layout.root.clone() };
        unreadable.map_or_else(missing, |(_, error)| error)
    }
}
