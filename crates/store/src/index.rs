//! In which pack a page is.

use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use watari_types::PageHash;

use crate::pack::{Kind, Pack, PackId};

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
    /// The how manieth page of the pack.
    pub(crate) fn position(&self) -> u32 {
        self.pack.frames()[self.frame as usize].first_page + self.slot
    }

    /// Whether the page's bytes are there, and not only how it differs from another.
    pub(crate) fn is_whole(&self) -> bool {
        self.pack.frames()[self.frame as usize].kind == Kind::Pages
    }
}

/// Every page of every known pack: one table over all packs, so that finding a page does not become slower with
/// the number of packs. It takes about 45 bytes per page, 32 of them the packs' own lists of hashes.
#[derive(Default)]
pub(crate) struct PageIndex {
    packs: Vec<Arc<Pack>>,
    ids: HashSet<PackId>,
    entries: HashTable<Entry32>,
}

#[derive(Clone, Copy)]
struct Entry32 {
    pack: u32,
    position: u32,
}

/// A hash for tables: the first bytes of what is a hash already.
pub(crate) fn short_hash(page: &PageHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = page.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl PageIndex {
    /// Adds a pack unless it is there. Its copy of a page wins over that of packs added before, except that a
    /// change never wins over the page itself (what others are changes of must be found whole), nor otherwise what is
    /// condemned over what is not.
    pub(crate) fn insert(&mut self, pack: Arc<Pack>) {
        if !self.ids.insert(pack.id) {
            return;
        }
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        let packs = &self.packs;
        let hash_of = |e: &Entry32| &packs[e.pack as usize].pages()[e.position as usize];
        let rank = |e: &Entry32| {
            let pack = &packs[e.pack as usize];
            (pack.is_whole(e.position), !pack.is_condemned)
        };
        let pages = packs[number as usize].pages();
        self.entries.reserve(pages.len(), |e| short_hash(hash_of(e)));
        for (position, page) in (0..).zip(pages) {
            let entry = Entry32 { pack: number, position };
            match self.entries.entry(short_hash(page), |e| hash_of(e) == page, |e| short_hash(hash_of(e))) {
                Entry::Occupied(mut known) => {
                    if rank(&entry) >= rank(known.get()) {
                        *known.get_mut() = entry;
                    }
                }
                Entry::Vacant(vacant) => {
                    vacant.insert(entry);
                }
            }
        }
    }

    /// Keeps only the packs that `keep` wants.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Pack) -> bool) {
        let packs = std::mem::take(&mut self.packs);
        self.entries.clear();
        self.ids.clear();
        for pack in packs.into_iter().filter(|pack| keep(pack)) {
            self.insert(pack);
        }
    }

    pub(crate) fn find(&self, page: &PageHash) -> Option<Place> {
        let entry = self.entry(page)?;
        let pack = Arc::clone(&self.packs[entry.pack as usize]);
        let (frame, slot) = pack.frame_of(entry.position);
        Some(Place { pack, frame, slot })
    }

    pub(crate) fn contains(&self, page: &PageHash) -> bool {
        self.entry(page).is_some()
    }

    fn entry(&self, page: &PageHash) -> Option<Entry32> {
        let same = |e: &Entry32| self.packs[e.pack as usize].pages()[e.position as usize] == *page;
        self.entries.find(short_hash(page), same).copied()
    }

    pub(crate) fn has(&self, pack: PackId) -> bool {
        self.ids.contains(&pack)
    }

    pub(crate) fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }
}
