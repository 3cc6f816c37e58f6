//! Scans, seals, and what becomes of their pages.
//!
//! ```text
//!            write           scan, seal               published
//! (published) ───▶ written ───────────▶ pending ─────────────────▶ (published)
//!                     ▲                    │ write: both, until the next scan
//!                     └────────────────────┘
//! ```
//! In the map a page is *unpublished* from its first write on. What is *written* is known in memory only, so
//! that scans and seals touch no file; a disk that is opened again has everything unpublished *pending*.

use std::io;
use std::sync::atomic::Ordering;

use watari_types::{Page, PageSet};

use crate::Disk;
use crate::bits::{self, SparseWords};
use crate::engine::Engine;
use crate::guards::{Held, SealId};

/// Words handled at a time with the gate held: some ten microseconds.
const BATCH: usize = 1 << 13;

/// The pages found written at one instant, with the content they had at it.
///
/// That instant is the same for all pages: the set holds every write acknowledged before [`Disk::seal`] was
/// called, no write begun after it returned, and of those in between each page as some of them left it.
///
/// Dropping it releases the pages: writers need not keep their content any more. They stay pending.
pub struct Sealed {
    disk: Disk,
    id: SealId,
    pages: PageSet,
}

impl Sealed {
    /// The sealed pages.
    pub fn pages(&self) -> &PageSet {
        &self.pages
    }

    /// Reads a sealed page as it was at the seal. Afterwards it is not kept any more and cannot be read again.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a page that was not sealed or was read before. Any other error is
    /// the file's or the source's, and the page stays sealed.
    pub fn read(&self, page: u32, into: &mut Page) -> io::Result<()> {
        let engine = self.disk.engine();
        // Kept content needs no stripe. Whoever holds the stripe may wait for the disk.
        if let Held::Kept(content) = engine.guards.take(self.id, page) {
            *into = *content;
            return Ok(());
        }
        let _stripe = engine.stripes.lock(page);
        match engine.guards.take(self.id, page) {
            Held::Kept(content) => *into = *content,
            Held::InPlace => {
                *into = engine.read_page(page)?;
                engine.guards.saved(self.id, page);
            }
            Held::Nothing => {
                let message = format!("page {page} is not sealed, or was read already");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        Ok(())
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.disk.engine().guards.release(self.id);
    }
}

impl Disk {
    /// The pages written since the last scan or seal. They are pending from now on.
    ///
    /// A page read after the scan has the content of every write that was acknowledged before it, or a later
    /// one, and then a later scan or seal has the page again.
    pub fn scan(&self) -> PageSet {
        let engine = self.engine();
        let words = {
            let _gate = engine.gate.write();
            let words = engine.written.take();
            engine.guards.scanned(&words);
            words
        };
        bits::page_set(&words)
    }

    /// Like [`scan`](Disk::scan), and the pages keep their content for the returned [`Sealed`] until it has
    /// read them or is dropped: a write to one first puts the old content aside. Of that at most 64 MiB are
    /// held in memory; beyond, writers wait until some was read.
    ///
    /// Never waits for a disk; takes time in proportion to the pages found.
    pub fn seal(&self) -> Sealed {
        let engine = self.engine();
        let (words, id) = {
            let _gate = engine.gate.write();
            let words = engine.written.take();
            (words.clone(), engine.guards.seal(words))
        };
        Sealed { disk: self.clone(), id, pages: bits::page_set(&words) }
    }

    /// The pages that were scanned, sealed, or found unpublished when the disk was opened, and are not in a
    /// published snapshot. Those written again since are only in the next scan, or in both.
    pub fn pending(&self) -> PageSet {
        let engine = self.engine();
        let mut words = SparseWords::new();
        for (word, value) in engine.map.unpublished().iter().enumerate() {
            let value = value.load(Ordering::Acquire);
            if value != 0 {
                words.push((word as u32, value & !engine.written.word(word)));
            }
        }
        bits::page_set(&words)
    }

    /// Everything that was pending when `upto` was sealed, its own pages included, is in a published snapshot
    /// now. Pages written or scanned since stay counted.
    pub fn published(&self, upto: Sealed) {
        debug_assert!(std::ptr::eq(self.engine(), upto.disk.engine()), "sealed on another disk");
        upto.disk.engine().publish(upto.id);
    }
}

impl Engine {
    fn publish(&self, id: SealId) {
        let unpublished = self.map.unpublished();
        for start in (0..unpublished.len()).step_by(BATCH) {
            // Alone: between a writer's two marks of one page there must be no room for this.
            let _gate = self.gate.write();
            let later = self.guards.later(id);
            for (word, value) in unpublished.iter().enumerate().skip(start).take(BATCH) {
                if value.load(Ordering::Acquire) != 0 {
                    let since = self.written.word(word) | later.get(&(word as u32)).copied().unwrap_or(0);
                    value.fetch_and(since, Ordering::AcqRel);
                }
            }
        }
        let differs = |pages| bits::any(unpublished, pages);
        if let Err(err) = self.ledger.published(differs, || self.make_durable()) {
            // They stay touched: after a loss of power more would be compared than need be.
            tracing::warn!("the disk cannot be synced: {err}");
        }
    }
}
