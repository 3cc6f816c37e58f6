//! Room for the pages that are copied during the pause, touched beforehand so that no copy faults.

use watari_types::{PAGE_SIZE, PageSet};

use crate::ram::Ram;
use crate::{Error, Result};

/// The least room kept ready, in pages.
const LEAST: u64 = 1024;
/// The most room kept from one capture to the next, in pages (64 MiB).
const MOST: u64 = 16384;

/// Pages copied out of RAM blocks.
#[derive(Default)]
pub(crate) struct Staging {
    bytes: Vec<u8>,
    /// Which pages of which range, in the order of `bytes`.
    parts: Vec<(usize, Vec<u32>)>,
}

impl Staging {
    /// Makes room for a pause after a round of `pages` pages, and then some.
    pub(crate) fn expect(&mut self, pages: u64) {
        let room = pages.saturating_mul(2).clamp(LEAST, MOST) as usize * PAGE_SIZE;
        if self.bytes.len() < room {
            // Not zero: a zeroed allocation is only touched when it is written.
            self.bytes.resize(room, 0xff);
        }
    }

    /// Takes the room for a pause.
    pub(crate) fn take(&mut self) -> Staging {
        std::mem::take(self)
    }

    /// Gives it back afterwards.
    pub(crate) fn recycle(&mut self, used: Staging) {
        *self = used;
        self.parts.clear();
        self.bytes.truncate(MOST as usize * PAGE_SIZE);
        self.bytes.shrink_to(MOST as usize * PAGE_SIZE);
    }

    /// Copies the written pages, set by set in the order of the RAM's ranges.
    pub(crate) fn copy(&mut self, ram: &Ram, written: &[PageSet]) -> Result<()> {
        let total = written.iter().map(PageSet::len).sum::<u64>() as usize * PAGE_SIZE;
        if self.bytes.len() < total {
            self.bytes
                .try_reserve(total - self.bytes.len())
                .map_err(|e| Error::Memory { bytes: total as u64, source: std::io::Error::other(e) })?;
            self.bytes.resize(total, 0);
        }
        let mut at = 0;
        for (range, set) in written.iter().enumerate().filter(|(_, set)| !set.is_empty()) {
            let pages: Vec<u32> = set.iter().collect();
            let end = at + pages.len() * PAGE_SIZE;
            ram.read(range, &pages, &mut self.bytes[at..end])?;
            self.parts.push((range, pages));
            at = end;
        }
        Ok(())
    }

    /// How many pages were copied.
    pub(crate) fn pages(&self) -> u64 {
        self.parts.iter().map(|(_, pages)| pages.len() as u64).sum()
    }

    /// Hands out what was copied, range by range.
    pub(crate) fn each(&self, mut work: impl FnMut(usize, &[u32], &[u8]) -> Result<()>) -> Result<()> {
        let mut at = 0;
        for (range, pages) in &self.parts {
            let end = at + pages.len() * PAGE_SIZE;
            work(*range, pages, &self.bytes[at..end])?;
            at = end;
        }
        Ok(())
    }
}
