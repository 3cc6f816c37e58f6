//! The pages written since the last scan, in memory, so that taking them never waits for a disk.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bits::{self, SparseWords};
use crate::summary::Summary;

/// A bitmap with a summary above it, which makes [`Written::take`] proportional to what was written.
///
/// The summary may only be trusted because marking and taking exclude each other; the engine's gate sees to it.
pub(crate) struct Written {
    words: Vec<AtomicU64>,
    summary: Summary,
}

impl Written {
    pub(crate) fn new(pages: u32) -> Written {
        let words = bits::words_for(pages);
        Written { words: bits::clear_bitmap(words), summary: Summary::new(words) }
    }

    /// Marks `pages`. The gate must be held, shared or not.
    pub(crate) fn mark(&self, pages: Range<u32>) {
        for part in bits::parts(pages) {
            let (word, mask) = bits::place(&part);
            bits::set(&self.words[word], mask);
            self.summary.set(word);
        }
    }

    /// Takes all marks away and returns them. The gate must be held alone.
    pub(crate) fn take(&self) -> SparseWords {
        let marked = |word: usize| (word as u32, self.words[word].swap(0, Ordering::AcqRel));
        self.summary.take().map(marked).filter(|(_, value)| *value != 0).collect()
    }

    /// Whether nothing is marked; what is being marked may be missed.
    pub(crate) fn is_empty(&self) -> bool {
        self.summary.is_empty()
    }

    /// The marks of one word.
    pub(crate) fn word(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::Acquire)
    }
}
