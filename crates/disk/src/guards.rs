//! Copy-before-write: which pages must not change yet, and the old content of those that did.
//!
//! A seal *wants* pages. A writer that is about to change a wanted page *keeps* its old content for every seal
//! that wants it; the saver *takes* it. Each page leaves a seal one of three ways: saved from the file, kept
//! and taken, or released with the seal.
//!
//! Kept content is bounded. A writer that finds no room waits (holding no lock) until the saver took some or a
//! seal was released, which always makes room in the end.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use watari_types::Page;

use crate::bits::{self, SparseWords, WORD_PAGES};

/// The seals that are not released yet.
pub(crate) struct Guards {
    /// The union of what the seals want: what a writer looks at. Changed only with `seals` locked.
    wanted: Vec<AtomicU64>,
    seals: Mutex<Seals>,
    room: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Seals {
    open: BTreeMap<SealId, Seal>,
    last: u64,
    kept: usize,
    reserved: usize,
}

/// Names a seal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SealId(u64);

#[derive(Default)]
struct Seal {
    wanted: SparseWords,
    kept: HashMap<u32, Arc<Page>>,
    /// What was scanned after the seal: not covered by the snapshot it is for.
    later: HashMap<u32, u64>,
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
        let wanted = bits::clear_bitmap(bits::words_for(pages));
        Guards { wanted, seals: Mutex::default(), room: Condvar::new(), limit }
    }

    /// Whether any of `pages` is wanted.
    pub(crate) fn any(&self, pages: Range<u32>) -> bool {
        bits::any(&self.wanted, pages)
    }

    /// Which of a part's pages are wanted.
    pub(crate) fn wanted(&self, part: &Range<u32>) -> u64 {
        let (word, mask) = bits::place(part);
        self.wanted[word].load(Ordering::Acquire) & mask
    }

    /// Seals the pages of `words`.
    pub(crate) fn seal(&self, words: SparseWords) -> SealId {
        let mut seals = self.seals.lock();
        seals.note_later(&words);
        for (word, value) in &words {
            bits::set(&self.wanted[*word as usize], *value);
        }
        seals.last += 1;
        let id = SealId(seals.last);
        seals.open.insert(id, Seal { wanted: words, ..Seal::default() });
        id
    }

    /// Tells the open seals that the pages of `words` were scanned again after them.
    pub(crate) fn scanned(&self, words: &[(u32, u64)]) {
        self.seals.lock().note_later(words);
    }

    /// What was scanned after the seal, by word.
    pub(crate) fn later(&self, id: SealId) -> HashMap<u32, u64> {
        self.seals.lock().open.get(&id).map(|seal| seal.later.clone()).unwrap_or_default()
    }

    /// Waits until there is room for the old content of the wanted pages of `part`.
    pub(crate) fn reserve(&self, part: &Range<u32>) -> Reservation<'_> {
        let mut seals = self.seals.lock();
        loop {
            let pages = self.wanted(part).count_ones() as usize;
            if pages == 0 || seals.kept + seals.reserved + pages <= self.limit {
                seals.reserved += pages;
                return Reservation { guards: self, pages };
            }
            self.room.wait(&mut seals);
        }
    }

    /// What the seal has of `page`; kept content is given away. The page's stripe need not be locked, but then
    /// [`Held::InPlace`] may be outdated when it arrives.
    pub(crate) fn take(&self, id: SealId, page: u32) -> Held {
        let mut seals = self.seals.lock();
        let Some(seal) = seals.open.get_mut(&id) else { return Held::Nothing };
        if let Some(content) = seal.kept.remove(&page) {
            seals.kept -= 1;
            self.room.notify_all();
            return Held::Kept(content);
        }
        let (word, mask) = bits::place(&(page..page + 1));
        if seal.wanted_in(word) & mask != 0 { Held::InPlace } else { Held::Nothing }
    }

    /// The seal has read `page` in its place. The page's stripe must be locked.
    pub(crate) fn saved(&self, id: SealId, page: u32) {
        let mut seals = self.seals.lock();
        let (word, mask) = bits::place(&(page..page + 1));
        if let Some(seal) = seals.open.get_mut(&id) {
            seal.drop_wanted(word, mask);
        }
        self.refresh(&seals, word);
        self.room.notify_all();
    }

    /// Ends a seal, and everything that waited for it.
    pub(crate) fn release(&self, id: SealId) {
        let mut seals = self.seals.lock();
        if let Some(seal) = seals.open.remove(&id) {
            seals.kept -= seal.kept.len();
            for (word, _) in &seal.wanted {
                self.refresh(&seals, *word as usize);
            }
        }
        self.room.notify_all();
    }

    fn refresh(&self, seals: &Seals, word: usize) {
        let wanted = seals.open.values().fold(0, |all, seal| all | seal.wanted_in(word));
        self.wanted[word].store(wanted, Ordering::Release);
    }
}

impl Reservation<'_> {
    /// How many pages it is for.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Keeps the old content of `page` for every seal that wants it, which then wants it no longer. The page's
    /// stripe must be locked.
    pub(crate) fn keep(&mut self, page: u32, content: Page) {
        let content = Arc::new(content);
        let (word, mask) = bits::place(&(page..page + 1));
        let mut seals = self.guards.seals.lock();
        let mut copies = 0;
        for seal in seals.open.values_mut() {
            if seal.wanted_in(word) & mask != 0 {
                seal.drop_wanted(word, mask);
                seal.kept.insert(page, content.clone());
                copies += 1;
            }
        }
        seals.kept += copies;
        seals.reserved -= 1;
        self.pages -= 1;
        self.guards.refresh(&seals, word);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.pages > 0 {
            self.guards.seals.lock().reserved -= self.pages;
            self.guards.room.notify_all();
        }
    }
}

impl Seals {
    fn note_later(&mut self, words: &[(u32, u64)]) {
        for seal in self.open.values_mut() {
            for (word, value) in words {
                *seal.later.entry(*word).or_default() |= value;
            }
        }
    }
}

impl Seal {
    fn wanted_in(&self, word: usize) -> u64 {
        self.slot(word).map_or(0, |slot| self.wanted[slot].1)
    }

    fn drop_wanted(&mut self, word: usize, mask: u64) {
        if let Some(slot) = self.slot(word) {
            self.wanted[slot].1 &= !mask;
        }
    }

    fn slot(&self, word: usize) -> Option<usize> {
        self.wanted.binary_search_by_key(&(word as u32), |(word, _)| *word).ok()
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
