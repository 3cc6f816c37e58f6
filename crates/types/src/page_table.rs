//! What a whole region holds: for each page, the hash of its content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::{PageHash, PageSet, RegionDelta};

const CHUNK: u32 = 512;

/// The content of one region, page by page. Every page not set is the zero page, and runs of zero pages take
/// no memory, so a sparse region costs what it holds: 32 bytes per page that is not zero.
#[derive(Clone, Default)]
pub struct PageTable {
    chunks: BTreeMap<u32, Box<Chunk>>,
}

#[derive(Clone)]
struct Chunk {
    hashes: [PageHash; CHUNK as usize],
    non_zero: u32,
}

impl PageTable {
    /// The table of a region that is all zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the content of `page`.
    pub fn get(&self, page: u32) -> PageHash {
        self.chunks.get(&(page / CHUNK)).map_or(PageHash::ZERO_PAGE, |c| c.hashes[(page % CHUNK) as usize])
    }

    /// Records that `page` now holds `hash`.
    pub fn set(&mut self, page: u32, hash: PageHash) {
        self.set_run(page, &[hash.0]);
    }

    /// Records that the pages from `first` on now hold what these hashes name. Pages beyond the last number there
    /// is are left out.
    pub fn set_run(&mut self, first: u32, hashes: &[[u8; 32]]) {
        let (mut page, mut rest) = (Some(first), hashes);
        while let Some(at) = page.filter(|_| !rest.is_empty()) {
            let slot = at % CHUNK;
            let (now, later) = rest.split_at(rest.len().min((CHUNK - slot) as usize));
            self.set_in_chunk(at / CHUNK, slot as usize, now);
            (page, rest) = (at.checked_add(now.len() as u32), later);
        }
    }

    fn set_in_chunk(&mut self, key: u32, slot: usize, hashes: &[[u8; 32]]) {
        let zeros = hashes.iter().filter(|hash| PageHash(**hash).is_zero_page()).count();
        if zeros == hashes.len() && !self.chunks.contains_key(&key) {
            return;
        }
        let chunk = self.chunks.entry(key).or_insert_with(|| {
            Box::new(Chunk { hashes: [PageHash::ZERO_PAGE; CHUNK as usize], non_zero: 0 })
        });
        let slots = &mut chunk.hashes[slot..slot + hashes.len()];
        chunk.non_zero -= slots.iter().filter(|hash| !hash.is_zero_page()).count() as u32;
        chunk.non_zero += (hashes.len() - zeros) as u32;
        slots.iter_mut().zip(hashes).for_each(|(slot, hash)| *slot = PageHash(*hash));
        if chunk.non_zero == 0 {
            self.chunks.remove(&key);
        }
    }

    /// Lays a delta over the table.
    pub fn apply(&mut self, delta: &RegionDelta) {
        for (page, hash) in delta.iter() {
            self.set(page, hash);
        }
    }

    /// The pages that are not zero, ascending, with their content's name.
    pub fn iter(&self) -> impl Iterator<Item = (u32, PageHash)> + '_ {
        self.chunks.iter().flat_map(|(key, chunk)| {
            (key * CHUNK..).zip(chunk.hashes).filter(|(_, hash)| !hash.is_zero_page())
        })
    }

    /// The runs of pages within `within` that are not zero, ascending.
    pub fn runs(&self, within: Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let chunks = self.chunks.range(within.start / CHUNK..within.end.div_ceil(CHUNK));
        for (key, chunk) in chunks {
            for (page, hash) in (key * CHUNK..).zip(&chunk.hashes) {
                if hash.is_zero_page() || !within.contains(&page) {
                    continue;
                }
                match runs.last_mut() {
                    Some(run) if run.end == page => run.end += 1,
                    _ => runs.push(page..page + 1),
                }
            }
        }
        runs
    }

    /// The pages that are not the same in both, in time proportional to what either holds.
    pub fn differing(&self, other: &PageTable) -> PageSet {
        let keys: BTreeSet<u32> = self.chunks.keys().chain(other.chunks.keys()).copied().collect();
        let in_chunk = |key: u32| {
            let (ours, theirs) = (self.chunks.get(&key), other.chunks.get(&key));
            let name = |chunk: Option<&Box<Chunk>>, slot: u32| {
                chunk.map_or(PageHash::ZERO_PAGE, |chunk| chunk.hashes[slot as usize])
            };
            (0..CHUNK)
                .filter(move |slot| name(ours, *slot) != name(theirs, *slot))
                .map(move |slot| key * CHUNK + slot)
        };
        keys.into_iter().flat_map(in_chunk).collect()
    }

    /// How many pages are not zero.
    pub fn len(&self) -> u64 {
        self.chunks.values().map(|c| u64::from(c.non_zero)).sum()
    }

    /// Whether every page is zero.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The pages that are not zero.
    pub fn pages(&self) -> PageSet {
        self.iter().map(|(page, _)| page).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    #[test]
    fn a_table_holds_what_was_last_set_and_forgets_zero_pages() {
        let (a, b) = (PageHash::of(&[1; PAGE_SIZE]), PageHash::of(&[2; PAGE_SIZE]));
        let mut table = PageTable::new();
        table.set(3, a);
        table.set(70_000, b);
        table.set(3, b);
        table.set(9, PageHash::ZERO_PAGE);
        assert_eq!(table.iter().collect::<Vec<_>>(), [(3, b), (70_000, b)]);
        assert_eq!((table.get(3), table.get(4)), (b, PageHash::ZERO_PAGE));
        table.set(4, a);
        assert_eq!(table.runs(0..80_000), [3..5, 70_000..70_001]);
        assert_eq!(table.runs(4..70_000).iter().cloned().flatten().collect::<Vec<_>>(), [4]);
        table.set_run(510, &[a.0, b.0, PageHash::ZERO_PAGE.0, a.0]);
        assert_eq!(table.iter().skip(2).take(3).collect::<Vec<_>>(), [(510, a), (511, b), (513, a)]);
        table.set_run(509, &[PageHash::ZERO_PAGE.0; 6]);
        table.set_run(u32::MAX, &[a.0, b.0]);
        assert_eq!(table.get(u32::MAX), a);
        table.set(u32::MAX, PageHash::ZERO_PAGE);
        assert_eq!(table.len(), 3);
        let mut other = table.clone();
        assert!(table.differing(&other).is_empty());
        other.set(4, b);
        other.set(3, PageHash::ZERO_PAGE);
        other.set(5_000, a);
        assert_eq!(table.differing(&other).iter().collect::<Vec<_>>(), [3, 4, 5_000]);
        assert_eq!(other.differing(&table), table.differing(&other));
        table.set(4, PageHash::ZERO_PAGE);
        table.set(3, PageHash::ZERO_PAGE);
        table.set(70_000, PageHash::ZERO_PAGE);
        assert!(table.is_empty());
        assert_eq!(table.len(), 0);
    }
}
