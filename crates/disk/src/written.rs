//! Pages that something happened to since a certain moment, in memory, so that nobody who asks waits for a disk.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bits::{self, SparseWords};
use crate::summary::Summary;

/// A bitmap with a summary above it: walking it takes time in proportion to what is marked.
pub(crate) struct Written {
    words: Vec<AtomicU64>,
    summary: Summary,
}

impl Written {
    pub(crate) fn new(pages: u32) -> Written {
        let words = bits::words_for(pages);
        Written { words: bits::clear_bitmap(words), summary: Summary::new(words) }
    }

    /// Marks `pages`.
    pub(crate) fn mark(&self, pages: Range<u32>) {
        for part in bits::parts(pages) {
            let (word, mask) = bits::place(&part);
            bits::set(&self.words[word], mask);
            self.summary.set(word);
        }
    }

    /// All marks. What is being marked may be missed.
    pub(crate) fn words(&self) -> SparseWords {
        let marked = |word: usize| (word as u32, self.word(word));
        self.summary.words().map(marked).filter(|(_, value)| *value != 0).collect()
    }

    /// Takes all marks away and returns them. Nobody may be marking.
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
