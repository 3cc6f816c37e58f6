//! Which words of a bitmap are worth looking at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bits::{self, WORD_PAGES};

/// A bit for each word of a bitmap, set while the word may have bits set. What walks it looks, of a disk of 100 GiB, at
/// 50 KB, and otherwise at what it finds.
pub(crate) struct Summary(Vec<AtomicU64>);

impl Summary {
    /// Of a bitmap of so many words, all clear.
    pub(crate) fn new(words: usize) -> Summary {
        Summary(bits::clear_bitmap(words.div_ceil(WORD_PAGES as usize)))
    }

    pub(crate) fn set(&self, word: usize) {
        bits::set(&self.0[word / WORD_PAGES as usize], 1 << (word as u32 % WORD_PAGES));
    }

    pub(crate) fn clear(&self, word: usize) {
        self.0[word / WORD_PAGES as usize].fetch_and(!(1 << (word as u32 % WORD_PAGES)), Ordering::AcqRel);
    }

    /// The words whose bit is set.
    pub(crate) fn words(&self) -> impl Iterator<Item = usize> + '_ {
        self.walk(|word| word.load(Ordering::Acquire))
    }

    /// The words whose bit is set, which it is no longer.
    pub(crate) fn take(&self) -> impl Iterator<Item = usize> + '_ {
        self.walk(|word| word.swap(0, Ordering::AcqRel))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words().next().is_none()
    }

    fn walk(&self, read: impl Fn(&AtomicU64) -> u64) -> impl Iterator<Item = usize> {
        let values = self.0.iter().map(read).enumerate();
        values.flat_map(|(index, value)| bits::runs_in_word(index, value).flatten()).map(|word| word as usize)
    }
}
