//! Where memory comes from that is not there yet.

use std::io;

use watari_store::Store;
use watari_types::{PageSet, PageTable};

use crate::Result;

/// Hands out the content of neighbouring pages, from the first one on.
pub(crate) type Sink<'a> = &'a (dyn Fn(u32, &[u8]) -> io::Result<()> + Sync);

/// What main memory is to hold.
pub(crate) trait Supply: Send + Sync {
    /// Whether a page may be other than zero.
    fn has(&self, page: u32) -> bool;

    /// All of these.
    fn pages(&self) -> PageSet;

    /// How many these are.
    fn len(&self) -> u64;

    /// One more than the last of them. It does not grow.
    fn end(&self) -> u32;

    /// Whether they are to come also if nobody waits for them.
    fn is_near(&self) -> bool;

    /// Hands the content of `pages` to `sink`, from up to `threads` threads at once; zero pages need not be handed out that
    /// [`has`](Self::has) does not name.
    ///
    /// # Errors
    /// Some may have been handed out.
    fn read(&self, pages: &[u32], threads: usize, sink: Sink) -> Result<()>;
}

/// A region of a snapshot that lies in the store.
pub(crate) struct InStore {
    pub(crate) store: Store,
    pub(crate) table: PageTable,
}

impl Supply for InStore {
    fn has(&self, page: u32) -> bool {
        !self.table.get(page).is_zero_page()
    }

    fn pages(&self) -> PageSet {
        self.table.pages()
    }

    fn len(&self) -> u64 {
        self.table.len()
    }

    fn end(&self) -> u32 {
        self.table.last().map_or(0, |last| last.saturating_add(1))
    }

    fn is_near(&self) -> bool {
        true
    }

    fn read(&self, pages: &[u32], threads: usize, sink: Sink) -> Result<()> {
        let pages = pages.iter().map(|page| (*page, self.table.get(*page)));
        Ok(self.store.read_pages(pages, threads, sink)?)
    }
}
