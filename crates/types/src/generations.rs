//! When each page of a region changed last.

use std::ops::Range;

use crate::Generation;

/// Pages of a chunk: 16 MiB.
const CHUNK: u32 = 4096;
/// Pages of a block: what a cache line holds of them.
const BLOCK: usize = 64;
/// Generations told apart in a chunk, so that a page needs one byte.
const TOLD_APART: usize = u8::MAX as usize;
/// So many of the newest are never told less finely apart.
const EXACT: usize = TOLD_APART / 2;

/// The generation in which each page changed last; what never changed has none.
///
/// A region takes a little over one byte per page, in chunks of 16 MiB of which only those that changed are there, and
/// at most 1.5 bytes. So a chunk tells 255 generations apart. When there are more, the newest 127 stay exact, and older
/// neighbours become one, as if all their pages had changed in the later of the two: what is said to have changed since
/// then is never too little, and at most an eighth too much.
#[derive(Clone, Default)]
pub struct Generations {
    slots: Vec<Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    /// The newest generation in the chunk: looking for what is newer does not touch the others.
    newest: Generation,
    chunk: Option<Box<Chunk>>,
}

#[derive(Clone)]
struct Chunk {
    /// Ascending.
    generations: Vec<Generation>,
    /// For each page one more than the index of its generation, or 0: in the order of the generations.
    of_page: [u8; CHUNK as usize],
    /// The highest number in each block.
    of_block: [u8; CHUNK as usize / BLOCK],
}

impl Generations {
    /// Of a region in which nothing ever changed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `pages` changed in `generation`. What was recorded before is older; should it not be, it counts
    /// as if `generation` were as new.
    pub fn record(&mut self, generation: Generation, pages: Range<u32>) {
        let mut start = pages.start;
        while start < pages.end {
            let index = (start / CHUNK) as usize;
            let first = start % CHUNK;
            let len = (CHUNK - first).min(pages.end - start);
            if self.slots.len() <= index {
                self.slots.resize_with(index + 1, Slot::default);
            }
            self.slots[index].record(generation, first as usize..(first + len) as usize);
            let Some(next) = start.checked_add(len) else { break };
            start = next;
        }
    }

    /// When `page` changed last: never earlier than it did, and later only as said above.
    pub fn of(&self, page: u32) -> Option<Generation> {
        let chunk = self.slots.get((page / CHUNK) as usize)?.chunk.as_ref()?;
        let index = chunk.of_page[(page % CHUNK) as usize].checked_sub(1)?;
        chunk.generations.get(usize::from(index)).copied()
    }

    /// The pages that changed after `generation`, as ascending runs. Looks at 16 bytes for each 16 MiB of the region
    /// besides, and is otherwise proportional to what it finds.
    pub fn since(&self, generation: Generation) -> impl Iterator<Item = Range<u32>> + '_ {
        let newer = (0u32..).zip(&self.slots).filter(move |(_, slot)| slot.newest > generation);
        newer.flat_map(move |(index, slot)| {
            let runs = slot.chunk.iter().flat_map(move |chunk| chunk.since(generation));
            runs.map(move |run| index * CHUNK + run.start..(index * CHUNK).saturating_add(run.end))
        })
    }
}

impl Slot {
    fn record(&mut self, generation: Generation, pages: Range<usize>) {
        self.newest = self.newest.max(generation);
        let chunk = self.chunk.get_or_insert_with(|| {
            Box::new(Chunk {
                generations: Vec::new(),
                of_page: [0; CHUNK as usize],
                of_block: [0; CHUNK as usize / BLOCK],
            })
        });
        if chunk.generations.last() != Some(&self.newest) {
            if chunk.generations.len() == TOLD_APART {
                chunk.thin();
            }
            chunk.generations.push(self.newest);
        }
        // No number in the chunk is higher.
        let number = chunk.generations.len() as u8;
        chunk.of_block[pages.start / BLOCK..pages.end.div_ceil(BLOCK)].fill(number);
        chunk.of_page[pages].fill(number);
    }
}

impl Chunk {
    fn since(&self, generation: Generation) -> impl Iterator<Item = Range<u32>> + '_ {
        // Older ones have lower numbers.
        let oldest = self.generations.partition_point(|g| *g <= generation) + 1;
        let is_newer = move |page: &u8| usize::from(*page) >= oldest;
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = loop {
                let block = at / BLOCK + self.of_block.get(at / BLOCK..)?.iter().position(is_newer)?;
                at = at.max(block * BLOCK);
                let end = (block + 1) * BLOCK;
                match self.of_page[at..end].iter().position(is_newer) {
                    Some(skipped) => break at + skipped,
                    // What is newer in this block came before.
                    None => at = end,
                }
            };
            let alike = self.of_page[start..].iter().position(|page| !is_newer(page));
            at = alike.map_or(self.of_page.len(), |len| start + len);
            Some(start as u32..at as u32)
        })
    }

    /// Makes room: forgets generations that no page has any more, and tells the older half of the others less finely
    /// apart. At most 190 are left: each two that could not be joined hold more than an eighth of what is newer.
    fn thin(&mut self) {
        let mut pages = [0u32; TOLD_APART + 1];
        self.of_page.iter().for_each(|page| pages[usize::from(*page)] += 1);
        // From the newest to the oldest: in which of those that are left each ends up, counted in that order.
        let (mut left, mut place) = (Vec::with_capacity(TOLD_APART), [0; TOLD_APART + 1]);
        let (mut newer, mut together) = (0, 0);
        for number in (1..=self.generations.len()).rev().filter(|number| pages[*number] > 0) {
            let joins = left.len() > EXACT && (together + pages[number]) * 8 <= newer;
            if !joins {
                left.push(self.generations[number - 1]);
                (newer, together) = (newer + together, 0);
            }
            together += pages[number];
            place[number] = left.len() - 1;
        }
        self.of_page.iter_mut().filter(|page| **page > 0).for_each(|page| {
            *page = (left.len() - place[usize::from(*page)]) as u8;
        });
        for (block, pages) in self.of_block.iter_mut().zip(self.of_page.chunks_exact(BLOCK)) {
            *block = pages.iter().copied().max().unwrap_or(0);
        }
        left.reverse();
        self.generations = left;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pages_since(generations: &Generations, generation: u64) -> Vec<u32> {
        generations.since(Generation(generation)).flatten().collect()
    }

    proptest! {
        #[test]
        fn each_page_has_the_last_generation_that_was_recorded_for_it(
            changes in prop::collection::vec((0u32..20_000, 1u32..6_000), 1..60),
            asked in 0u64..60,
        ) {
            let (mut generations, mut oracle) = (Generations::new(), BTreeMap::new());
            for (generation, (start, len)) in (1u64..).zip(changes) {
                generations.record(Generation(generation), start..start + len);
                oracle.extend((start..start + len).map(|page| (page, generation)));
            }
            let expected: Vec<u32> =
                oracle.iter().filter(|(_, generation)| **generation > asked).map(|(page, _)| *page).collect();
            prop_assert_eq!(pages_since(&generations, asked), expected);
            for page in (0..26_000).step_by(97) {
                prop_assert_eq!(generations.of(page), oracle.get(&page).map(|generation| Generation(*generation)));
            }
        }
    }

    #[test]
    fn of_more_generations_than_can_be_told_apart_the_newer_are_exact_and_nothing_is_missed() {
        let (mut generations, mut oracle) = (Generations::new(), vec![0u64; CHUNK as usize]);
        let mut random = 1u32;
        for generation in 1..=5_000u64 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let page = (random >> 16) % CHUNK;
            generations.record(Generation(generation), page..page + 1);
            oracle[page as usize] = generation;
        }
        for asked in (0..5_000).step_by(37) {
            let found = pages_since(&generations, asked);
            let expected: Vec<u32> = (0..CHUNK).filter(|page| oracle[*page as usize] > asked).collect();
            assert!(expected.iter().all(|page| found.binary_search(page).is_ok()), "missed since {asked}");
            if asked >= 4_870 {
                assert_eq!(found, expected, "since {asked}");
            }
            let extra = found.len() - expected.len();
            assert!(extra * 8 <= expected.len(), "{extra} beside {} since {asked}", expected.len());
        }
        assert_eq!(pages_since(&generations, 5_000), [0; 0]);
    }

    #[test]
    fn the_last_pages_of_the_largest_region_can_change() {
        let mut generations = Generations::new();
        generations.record(Generation(3), u32::MAX - 2..u32::MAX);
        assert!(generations.since(Generation(2)).eq(std::iter::once(u32::MAX - 2..u32::MAX)));
        assert_eq!(generations.of(u32::MAX - 1), Some(Generation(3)));
        assert_eq!(generations.of(0), None);
    }
}
