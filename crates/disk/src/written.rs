//! The pages written since the last scan, in memory, so that taking them never waits for a disk.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bits::{self, SparseWords, WORD_PAGES};

/// A bitmap with a summary above it (a bit per word), which makes [`Written::take`] proportional to what was
/// written: of a 100 GiB disk it looks at 50 KB.
///
/// The summary may only be trusted because marking and taking exclude each other; the engine's gate sees to it.
pub(crate) struct Written {
    words: Vec<AtomicU64>,
    summary: Vec<AtomicU64>,
}

impl Written {
    pub(crate) fn new(pages: u32) -> Written {
        let words = bits::words_for(pages);
        Written {
            words: bits::clear_bitmap(words),
            summary: bits::clear_bitmap(words.div_ceil(WORD_PAGES as usize)),
        }
    }

    /// Marks `pages`. The gate must be held, shared or not.
    pub(crate) fn mark(&self, pages: Range<u32>) {
        for part in bits::parts(pages) {
            let (word, mask) = bits::place(&part);
            bits::set(&self.words[word], mask);
            bits::set(&self.summary[word / WORD_PAGES as usize], 1 << (word as u32 % WORD_PAGES));
        }
    }

    /// Takes all marks away and returns them. The gate must be held alone.
    pub(crate) fn take(&self) -> SparseWords {
        let mut taken = SparseWords::new();
        for (index, summary) in self.summary.iter().enumerate() {
            let marked = summary.swap(0, Ordering::AcqRel);
            for word in bits::runs_in_word(index, marked).flatten() {
                let value = self.words[word as usize].swap(0, Ordering::AcqRel);
                if value != 0 {
                    taken.push((word, value));
                }
            }
        }
        taken
    }

    /// Whether nothing is marked; what is being marked may be missed.
    pub(crate) fn is_empty(&self) -> bool {
        self.summary.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// The marks of one word.
    pub(crate) fn word(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::Acquire)
    }
}
