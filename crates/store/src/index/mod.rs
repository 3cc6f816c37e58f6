//! In which packs a page may be.
//!
//! Of each page there are 16 bytes in memory: the beginning of its name, and a place. Whether it is the page that is meant
//! only the pack itself can say; its index has the whole name ([`crate::packs`]).

mod file;
mod slots;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use watari_types::PageHash;

use crate::error::Error;
use crate::layout::Layout;
use crate::pack::{HeadHash, Pack, PackId};
use table::{Entry, Table};

/// A pack that is there, or was when it was last looked.
pub(crate) struct Known {
    pub(crate) id: PackId,
    /// Whether it is to go away.
    pub(crate) is_condemned: bool,
    /// What was noted of its index when that was checked.
    pub(crate) head: HeadHash,
    /// From when it is first used.
    pub(crate) opened: OnceLock<Arc<Pack>>,
}

/// Where a page may be.
pub(crate) struct Candidate {
    pub(crate) pack: Arc<Known>,
    /// The how manieth page of the pack.
    pub(crate) position: u32,
}

/// Every page of every known pack: one table over all packs, so that finding a page does not become slower with
/// the number of packs. A page that is in several packs is in it several times.
#[derive(Default)]
pub(crate) struct PageIndex {
    packs: Vec<Arc<Known>>,
    numbers: HashMap<PackId, u32>,
    table: Table,
    /// About how many pages would have to be read in packs by someone who only has the file.
    unsaved: usize,
}

/// To open a pack takes as long as to read the names of so many pages.
const OPENING: usize = 1024;

/// Packs to be added to an index, and all their pages.
#[derive(Default)]
pub(crate) struct NewPacks {
    packs: Vec<Arc<Pack>>,
    /// With the pack's number among these.
    entries: Vec<Entry>,
}

/// What a table has of a name. In its order names are sorted as they are when their bytes are compared.
fn beginning(name: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *name;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl NewPacks {
    /// One that was just written.
    pub(crate) fn of(pack: Pack, names: &[PageHash]) -> NewPacks {
        let entry =
            |(position, name): (u32, &PageHash)| Entry { beginning: beginning(&name.0), pack: 0, position };
        NewPacks { packs: vec![Arc::new(pack)], entries: (0..).zip(names).map(entry).collect() }
    }

    /// Opens one more. If that fails, nothing has changed.
    pub(crate) fn open(
        &mut self,
        layout: &Layout,
        path: &Path,
        id: PackId,
        is_condemned: bool,
    ) -> Result<(), Error> {
        let (number, before) = (self.packs.len() as u32, self.entries.len());
        let entries = &mut self.entries;
        let opened = Pack::open_checked(layout, path, id, is_condemned, &mut |names| {
            let first = (entries.len() - before) as u32;
            let entry = |(position, name)| Entry { beginning: beginning(name), pack: number, position };
            entries.extend((first..).zip(names).map(entry));
        });
        let opened = opened.inspect_err(|_| self.entries.truncate(before))?;
        self.packs.push(Arc::new(opened));
        Ok(())
    }
}

impl PageIndex {
    /// Adds packs, but for those that are there.
    pub(crate) fn insert(&mut self, new: NewPacks) {
        let mut numbers = Vec::with_capacity(new.packs.len());
        for pack in new.packs {
            let (id, is_condemned, head) = (pack.id, pack.is_condemned, pack.head);
            let known = Known { id, is_condemned, head, opened: OnceLock::from(pack) };
            numbers.push((!self.has(known.id)).then(|| self.push(Arc::new(known))));
        }
        let renumbered = |entry: Entry| numbers[entry.pack as usize].map(|pack| Entry { pack, ..entry });
        // In place, there may be many. In order, so that each goes near the one before.
        let mut entries: Vec<Entry> = new.entries.into_iter().filter_map(renumbered).collect();
        entries.sort_unstable();
        self.table.reserve(entries.len());
        entries.iter().for_each(|entry| self.table.insert(*entry));
        self.unsaved += entries.len() + numbers.iter().flatten().count() * OPENING;
    }

    fn push(&mut self, pack: Arc<Known>) -> u32 {
        let number = self.packs.len() as u32;
        self.numbers.insert(pack.id, number);
        self.packs.push(pack);
        number
    }

    /// Keeps only the packs that `keep` wants.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Known) -> bool) {
        let (packs, entries) = (std::mem::take(&mut self.packs), self.table.len());
        self.numbers.clear();
        let numbers: Vec<Option<u32>> =
            packs.into_iter().map(|pack| keep(&pack).then(|| self.push(pack))).collect();
        if numbers.iter().any(Option::is_none) {
            let renumbered = |entry: Entry| numbers[entry.pack as usize].map(|pack| Entry { pack, ..entry });
            self.table.retain(renumbered);
            self.unsaved += entries - self.table.len();
        }
    }

    /// Notes where a pack is now.
    pub(crate) fn note(&mut self, id: PackId, is_condemned: bool) {
        let Some(number) = self.numbers.get(&id) else { return };
        let known = &mut self.packs[*number as usize];
        if known.is_condemned != is_condemned {
            *known = Arc::new(Known { id, is_condemned, head: known.head, opened: OnceLock::new() });
        }
    }

    /// Where the page may be, and is not otherwise.
    pub(crate) fn candidates(&self, page: &PageHash) -> Vec<Candidate> {
        let candidate = |entry: Entry| Candidate {
            pack: Arc::clone(&self.packs[entry.pack as usize]),
            position: entry.position,
        };
        self.table.find(beginning(&page.0)).map(candidate).collect()
    }

    /// The number of the pack in which the page may be, and its position there, if there is just one such place.
    pub(crate) fn only_place(&self, page: &PageHash) -> Option<(u32, u32)> {
        let mut entries = self.table.find(beginning(&page.0));
        let only = entries.next()?;
        entries.next().is_none().then_some((only.pack, only.position))
    }

    /// Pages sorted by this lie as they lie in packs.
    pub(crate) fn order(&self, page: &PageHash) -> Option<(u32, u32)> {
        self.table.find(beginning(&page.0)).map(|entry| (entry.pack, entry.position)).next()
    }

    /// What someone who only has what was saved would have to do, in pages.
    pub(crate) fn unsaved(&self) -> usize {
        self.unsaved
    }

    /// Whether that takes long beside reading what was saved.
    pub(crate) fn is_worth_saving(&self) -> bool {
        self.unsaved > self.table.len() / 64 + 128 * OPENING
    }

    /// So much of it has been saved.
    pub(crate) fn was_saved(&mut self, unsaved: usize) {
        self.unsaved = self.unsaved.saturating_sub(unsaved);
    }

    pub(crate) fn has(&self, pack: PackId) -> bool {
        self.numbers.contains_key(&pack)
    }

    pub(crate) fn packs(&self) -> &[Arc<Known>] {
        &self.packs
    }
}
