//! Marks and copy-before-write: what was written since the last scan, and which pages must not change yet.
//!
//! ```text
//!            ┌─ epoch ────────────┐  seal   ┌─ epoch ────────────┐
//!            │ written            │ ──────▶ │ written (empty)    │
//!            │ sealed: [a]        │         │ sealed: [a, b]     │   b: what was written in the epoch before
//!            └────────────────────┘         └────────────────────┘
//! ```
//! An *epoch* lasts from one scan or seal to the next, and they end it by putting another one in its place: nothing is
//! copied and nobody is waited for, however much was written and whoever is writing. A change that was marking just
//! then sees it and leaves its marks in the new epoch as well; the old one may or may not have them.
//!
//! A seal *wants* the pages that its epoch has marks of. A writer that is about to change a wanted page *keeps* its old
//! content for every seal that wants it; the saver *takes* it. Each page leaves a seal one of three ways: saved from the
//! file, kept and taken, or released with the seal.
//!
//! Kept content is bounded. A writer that finds no room waits (holding no lock) until the saver took some or a
//! seal was released, which always makes room in the end.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use watari_types::Page;

use crate::bits::{self, SparseWords, WORD_PAGES};
use crate::written::Written;

/// The present epoch, and room for what is kept.
pub(crate) struct Guards {
    pages: u32,
    epoch: ArcSwap<Epoch>,
    /// Held by who puts another epoch in place. What the next seal needs is made beforehand: making it may have to wait
    /// for a turn of its own.
    turn: Mutex<Option<Fresh>>,
    room: Mutex<Room>,
    more_room: Condvar,
    limit: usize,
}

/// What changes look at and leave their marks in.
pub(crate) struct Epoch {
    written: Arc<Written>,
    sealed: Vec<Arc<Seal>>,
}

/// Empty bitmaps for an epoch and for the seal that ends the one before.
struct Fresh {
    written: Arc<Written>,
    gone: Vec<AtomicU64>,
}

impl Fresh {
    fn new(pages: u32) -> Fresh {
        let gone = bits::clear_bitmap(bits::words_for(pages));
        Fresh { written: Arc::new(Written::new(pages)), gone }
    }
}

#[derive(Default)]
struct Room {
    kept: usize,
    reserved: usize,
}

/// Pages that must be seen as they were at one instant.
pub(crate) struct Seal {
    /// The epoch that it ended.
    written: Arc<Written>,
    /// Pages that it has done with.
    gone: Vec<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<u32, Arc<Page>>,
    /// Epochs that ended after it: not covered by the snapshot it is for.
    later: Vec<Arc<Written>>,
    is_released: bool,
}

/// What a seal still has of a page.
pub(crate) enum Held {
    /// The content it had, which the seal has given away now.
    Kept(Arc<Page>),
    /// It is still in its place.
    InPlace,
    /// Nothing: it was not sealed, or was read before.
    Nothing,
}

/// The right to keep some pages.
pub(crate) struct Reservation<'a> {
    guards: &'a Guards,
    pages: usize,
}

impl Guards {
    /// For a disk of `pages`, keeping at most `limit` old pages at a time.
    pub(crate) fn new(pages: u32, limit: usize) -> Guards {
        let epoch = Epoch { written: Arc::new(Written::new(pages)), sealed: Vec::new() };
        Guards {
            pages,
            epoch: ArcSwap::from_pointee(epoch),
            turn: Mutex::new(Some(Fresh::new(pages))),
            room: Mutex::default(),
            more_room: Condvar::new(),
            limit,
        }
    }

    /// Marks `pages` as written in the present epoch. Returns that epoch: whoever marked before a change need not keep
    /// anything for seals that came later.
    pub(crate) fn mark(&self, pages: Range<u32>) -> Arc<Epoch> {
        loop {
            let epoch = self.epoch.load_full();
            epoch.written.mark(pages.clone());
            // Either this sees that the epoch has ended, or who ended it sees the mark.
            fence(Ordering::SeqCst);
            if Arc::ptr_eq(&epoch.written, &self.epoch.load().written) {
                return epoch;
            }
        }
    }

    /// The marks of one word in the present epoch.
    pub(crate) fn written(&self, word: usize) -> u64 {
        self.epoch.load().written.word(word)
    }

    /// Whether any of `pages` is wanted in the present epoch.
    pub(crate) fn wants_any(&self, pages: Range<u32>) -> bool {
        self.epoch.load().wants_any(pages)
    }

    /// Ends the epoch, and returns what was marked in it.
    pub(crate) fn scan(&self) -> SparseWords {
        let _turn = self.turn.lock();
        let ended = self.next_epoch(Arc::new(Written::new(self.pages)), None);
        fence(Ordering::SeqCst);
        ended.words()
    }

    /// Ends the epoch, and seals what was marked in it.
    pub(crate) fn seal(&self) -> Arc<Seal> {
        let mut turn = self.turn.lock();
        let Fresh { written, gone } = turn.take().unwrap_or_else(|| Fresh::new(self.pages));
        let ended = self.epoch.load().written.clone();
        let seal = Arc::new(Seal { written: ended, gone, state: Mutex::default() });
        self.next_epoch(written, Some(seal.clone()));
        seal
    }

    fn next_epoch(&self, written: Arc<Written>, seal: Option<Arc<Seal>>) -> Arc<Written> {
        let old = self.epoch.load_full();
        // Before the epoch ends: who looks for what is not covered by a seal looks at the present epoch first.
        for open in &old.sealed {
            open.state.lock().later.push(old.written.clone());
        }
        let sealed = old.sealed.iter().cloned().chain(seal).collect();
        self.epoch.store(Arc::new(Epoch { written, sealed }));
        old.written.clone()
    }

    /// Ends a seal, and everything that waited for it.
    pub(crate) fn release(&self, seal: &Arc<Seal>) {
        {
            let mut turn = self.turn.lock();
            turn.get_or_insert_with(|| Fresh::new(self.pages));
            let old = self.epoch.load_full();
            let sealed = old.sealed.iter().filter(|open| !Arc::ptr_eq(open, seal)).cloned().collect();
            self.epoch.store(Arc::new(Epoch { written: old.written.clone(), sealed }));
        }
        let kept = {
            let mut state = seal.state.lock();
            state.is_released = true;
            std::mem::take(&mut state.kept).len()
        };
        self.room.lock().kept -= kept;
        self.more_room.notify_all();
    }

    /// Waits until there is room for the old content of the pages of `part` that are wanted.
    pub(crate) fn reserve(&self, epoch: &Epoch, part: &Range<u32>) -> Reservation<'_> {
        let mut room = self.room.lock();
        loop {
            let pages = epoch.wanted(part).count_ones() as usize;
            if pages == 0 || room.kept + room.reserved + pages <= self.limit {
                room.reserved += pages;
                return Reservation { guards: self, pages };
            }
            self.more_room.wait(&mut room);
        }
    }

    /// What the seal has of `page`; kept content is given away. The page's stripe need not be locked, but then
    /// [`Held::InPlace`] may be outdated when it arrives.
    pub(crate) fn take(&self, seal: &Seal, page: u32) -> Held {
        let kept = seal.state.lock().kept.remove(&page);
        if let Some(content) = kept {
            self.room.lock().kept -= 1;
            self.more_room.notify_all();
            return Held::Kept(content);
        }
        let (word, mask) = bits::place(&(page..page + 1));
        if seal.wanted(word) & mask != 0 { Held::InPlace } else { Held::Nothing }
    }

    /// The seal has read `page` in its place. The page's stripe must be locked.
    pub(crate) fn saved(&self, seal: &Seal, page: u32) {
        let (word, mask) = bits::place(&(page..page + 1));
        bits::set(&seal.gone[word], mask);
        // Who waits with this page among others needs less room now.
        let _room = self.room.lock();
        self.more_room.notify_all();
    }
}

impl Epoch {
    /// Whether any of `pages` is wanted.
    pub(crate) fn wants_any(&self, pages: Range<u32>) -> bool {
        !self.sealed.is_empty() && bits::parts(pages).any(|part| self.wanted(&part) != 0)
    }

    /// Which of a part's pages are wanted.
    pub(crate) fn wanted(&self, part: &Range<u32>) -> u64 {
        let (word, mask) = bits::place(part);
        self.sealed.iter().fold(0, |all, seal| all | seal.wanted(word)) & mask
    }
}

impl Seal {
    /// The pages that were sealed.
    pub(crate) fn words(&self) -> SparseWords {
        fence(Ordering::SeqCst);
        self.written.words()
    }

    /// What was marked in epochs that ended after the seal, in one word.
    pub(crate) fn later(&self, word: usize) -> u64 {
        self.state.lock().later.iter().fold(0, |all, epoch| all | epoch.word(word))
    }

    fn wanted(&self, word: usize) -> u64 {
        self.written.word(word) & !self.gone[word].load(Ordering::Acquire)
    }

    /// Keeps the content of a page if it is wanted; whether it was.
    fn keep(&self, page: u32, content: &Arc<Page>) -> bool {
        let (word, mask) = bits::place(&(page..page + 1));
        if self.wanted(word) & mask == 0 {
            return false;
        }
        let mut state = self.state.lock();
        bits::set(&self.gone[word], mask);
        if state.is_released {
            return false;
        }
        state.kept.insert(page, content.clone());
        true
    }
}

impl Reservation<'_> {
    /// How many pages it is for.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Keeps the old content of `page` for every seal that wants it, which then wants it no longer. The page's
    /// stripe must be locked.
    pub(crate) fn keep(&mut self, epoch: &Epoch, page: u32, content: Page) {
        let content = Arc::new(content);
        // Counted first: as soon as it is there, somebody may take it.
        let mut room = self.guards.room.lock();
        room.kept += epoch.sealed.iter().filter(|seal| seal.keep(page, &content)).count();
        room.reserved -= 1;
        self.pages -= 1;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.pages > 0 {
            self.guards.room.lock().reserved -= self.pages;
            self.guards.more_room.notify_all();
        }
    }
}

/// Locks for the parts of a disk, fewer than there are parts: those with the same lock exclude each other,
/// which costs time and nothing else.
pub(crate) struct Stripes(Vec<Mutex<()>>);

impl Stripes {
    pub(crate) fn new() -> Stripes {
        Stripes(std::iter::repeat_with(|| Mutex::new(())).take(256).collect())
    }

    /// Locks the word that `page` lies in.
    pub(crate) fn lock(&self, page: u32) -> parking_lot::MutexGuard<'_, ()> {
        self.0[(page / WORD_PAGES) as usize % self.0.len()].lock()
    }
}
