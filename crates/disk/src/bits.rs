//! Bitmaps of pages: one bit per page, 64 pages to an atomic word.
//!
//! The word is also the engine's unit of locking: 64 neighbouring pages, 256 KiB.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use watari_types::PageSet;

/// Pages in a word.
pub(crate) const WORD_PAGES: u32 = u64::BITS;

/// How many words hold `bits` bits.
pub(crate) fn words_for(bits: u32) -> usize {
    bits.div_ceil(WORD_PAGES) as usize
}

/// A bitmap in memory, all clear. A large one takes memory only where something is set in it, and no time to make.
pub(crate) fn clear_bitmap(words: usize) -> Vec<AtomicU64> {
    bytemuck::zeroed_vec(words)
}

/// Cuts a run of pages at the borders of words.
pub(crate) fn parts(pages: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut at = pages.start;
    std::iter::from_fn(move || {
        let start = at;
        at = pages.end.min((start | (WORD_PAGES - 1)).saturating_add(1));
        (start < pages.end).then_some(start..at)
    })
}

/// The word a part lies in, and its bits there. The part must be within one word and not empty.
pub(crate) fn place(part: &Range<u32>) -> (usize, u64) {
    let len = part.end - part.start;
    debug_assert!((1..=WORD_PAGES).contains(&len) && part.start / WORD_PAGES == (part.end - 1) / WORD_PAGES);
    ((part.start / WORD_PAGES) as usize, (u64::MAX >> (WORD_PAGES - len)) << (part.start % WORD_PAGES))
}

/// Whether any of `pages` is set.
pub(crate) fn any(bitmap: &[AtomicU64], pages: Range<u32>) -> bool {
    parts(pages).any(|part| {
        let (word, mask) = place(&part);
        bitmap[word].load(Ordering::Acquire) & mask != 0
    })
}

/// Sets `mask` in a word; does not dirty the memory it lies in when the bits are set already.
pub(crate) fn set(word: &AtomicU64, mask: u64) {
    if word.load(Ordering::Acquire) & mask != mask {
        word.fetch_or(mask, Ordering::AcqRel);
    }
}

/// Sets `pages`.
pub(crate) fn set_range(bitmap: &[AtomicU64], pages: Range<u32>) {
    for part in parts(pages) {
        let (word, mask) = place(&part);
        set(&bitmap[word], mask);
    }
}

/// Whether the first of `pages` (not empty) is set, and how far the pages like it reach.
pub(crate) fn run_at(bitmap: &[AtomicU64], pages: Range<u32>) -> (bool, Range<u32>) {
    let mut state = None;
    for part in parts(pages.clone()) {
        let shifted = bitmap[place(&part).0].load(Ordering::Acquire) >> (part.start % WORD_PAGES);
        let set = *state.get_or_insert(shifted & 1 == 1);
        let alike = if set { shifted.trailing_ones() } else { shifted.trailing_zeros() };
        if alike < part.end - part.start {
            return (set, pages.start..part.start + alike);
        }
    }
    (state.unwrap_or(false), pages)
}

/// The runs of `pages` that are alike, each with whether its pages are set.
pub(crate) fn runs(bitmap: &[AtomicU64], pages: Range<u32>) -> impl Iterator<Item = (bool, Range<u32>)> + '_ {
    let mut rest = pages;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (set, run) = run_at(bitmap, rest.clone());
        rest.start = run.end;
        Some((set, run))
    })
}

/// The runs of set bits in the value of the word with index `word`, as pages.
pub(crate) fn runs_in_word(word: usize, mut value: u64) -> impl Iterator<Item = Range<u32>> {
    let base = word as u32 * WORD_PAGES;
    std::iter::from_fn(move || {
        if value == 0 {
            return None;
        }
        let start = value.trailing_zeros();
        let len = (value >> start).trailing_ones();
        value &= !((u64::MAX >> (WORD_PAGES - len)) << start);
        Some(base + start..base + start + len)
    })
}

/// Words that are not zero with their index, ascending: a bitmap proportional to what is set.
pub(crate) type SparseWords = Vec<(u32, u64)>;

/// The pages of a sparse bitmap.
pub(crate) fn page_set(words: &[(u32, u64)]) -> PageSet {
    let mut set = PageSet::new();
    for (word, value) in words {
        for run in runs_in_word(*word as usize, *value) {
            set.insert_range(run);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bitmaps_agree_with_a_vector_of_booleans(
            ranges in prop::collection::vec((0u32..300, 0u32..150), 0..8),
            from in 0u32..400, len in 1u32..200,
        ) {
            let bitmap = clear_bitmap(words_for(600));
            let mut oracle = vec![false; 640];
            for (start, len) in ranges {
                set_range(&bitmap, start..start + len);
                oracle[start as usize..(start + len) as usize].fill(true);
            }
            let asked = from..from + len;
            prop_assert_eq!(super::any(&bitmap, asked.clone()), oracle[from as usize..(from + len) as usize].contains(&true));
            let mut at = from;
            let mut last = None;
            for (set, run) in runs(&bitmap, asked) {
                prop_assert_eq!(run.start, at);
                prop_assert!(last != Some(set), "neighbouring runs differ");
                prop_assert!(oracle[run.start as usize..run.end as usize].iter().all(|b| *b == set));
                (at, last) = (run.end, Some(set));
            }
            prop_assert_eq!(at, from + len);

            let sparse: SparseWords = bitmap.iter().enumerate()
                .map(|(i, w)| (i as u32, w.load(Ordering::Relaxed))).filter(|(_, w)| *w != 0).collect();
            let expected: PageSet = (0u32..640).filter(|p| oracle[*p as usize]).collect();
            prop_assert_eq!(page_set(&sparse), expected);
        }
    }

    #[test]
    fn the_last_pages_of_the_largest_disk_have_a_place() {
        assert_eq!(parts(u32::MAX - 70..u32::MAX).map(|p| p.len()).sum::<usize>(), 70);
        assert_eq!(place(&(u32::MAX - 1..u32::MAX)).1, 1 << 62);
    }
}
