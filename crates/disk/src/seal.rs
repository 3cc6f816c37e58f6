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
use std::sync::{Arc, OnceLock};

use watari_types::{Generation, Page, PageSet};

use crate::Disk;
use crate::at_work;
use crate::bits::{self, SparseWords};
use crate::engine::Engine;
use crate::guards::{Held, Seal};

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
    seal: Arc<Seal>,
    pages: OnceLock<PageSet>,
}

impl Sealed {
    /// The sealed pages. The first call takes time in proportion to them.
    pub fn pages(&self) -> &PageSet {
        self.pages.get_or_init(|| bits::page_set(&self.seal.words()))
    }

    /// Reads a sealed page as it was at the seal. Afterwards it is not kept any more and cannot be read again.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a page that was not sealed or was read before. Any other error is
    /// the file's or the source's, and the page stays sealed.
    pub fn read(&self, page: u32, into: &mut Page) -> io::Result<()> {
        let engine = self.disk.engine();
        // Kept content needs no stripe. Whoever holds the stripe may wait for the disk.
        if let Held::Kept(content) = engine.guards.take(&self.seal, page) {
            *into = *content;
            return Ok(());
        }
        let _stripe = engine.stripes.lock(page);
        match engine.guards.take(&self.seal, page) {
            Held::Kept(content) => *into = *content,
            Held::InPlace => {
                *into = engine.read_page(page)?;
                engine.guards.saved(&self.seal, page);
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
        self.disk.engine().guards.release(&self.seal);
    }
}

impl Disk {
    /// The pages written since the last scan or seal. They are pending from now on.
    ///
    /// A page read after the scan has the content of every write that was acknowledged before it, or a later
    /// one, and then a later scan or seal has the page again.
    pub fn scan(&self) -> PageSet {
        bits::page_set(&self.engine().guards.scan())
    }

    /// Like [`scan`](Disk::scan), and the pages keep their content for the returned [`Sealed`] until it has
    /// read them or is dropped: a write to one first puts the old content aside. Of that at most 64 MiB are
    /// held in memory; beyond, writers wait until some was read.
    ///
    /// Waits for nothing, not even for writers, and takes the same time however much was written.
    pub fn seal(&self) -> Sealed {
        Sealed { disk: self.clone(), seal: self.engine().guards.seal(), pages: OnceLock::new() }
    }

    /// The pages that were scanned, sealed, or found unpublished when the disk was opened, and are not in a
    /// published snapshot. Those written again since are only in the next scan, or in both.
    pub fn pending(&self) -> PageSet {
        let engine = self.engine();
        let pending = |(word, value): (usize, u64)| (word as u32, value & !engine.guards.written(word));
        bits::page_set(&engine.map.unpublished_words().map(pending).collect::<SparseWords>())
    }

    /// Everything that was pending when `upto` was sealed, its own pages included, is in the published snapshot
    /// `generation` now. Pages written or scanned since stay counted.
    pub fn published(&self, upto: Sealed, generation: Generation) {
        debug_assert!(std::ptr::eq(self.engine(), upto.disk.engine()), "sealed on another disk");
        upto.disk.engine().publish(&upto.seal, generation);
    }

    /// The pages that may have another content now than in the snapshot `generation` of this disk's history, which the
    /// newest published one descends from: those that were changed since, and no others (but see [`Generations`] for
    /// what is long ago). Takes time in proportion to what it finds.
    ///
    /// `None` for a snapshot before the one that the disk was opened with: what changed between those two, the store
    /// says.
    ///
    /// [`Generations`]: watari_types::Generations
    pub fn changed_since(&self, generation: Generation) -> Option<PageSet> {
        let engine = self.engine();
        if generation < engine.opened_at {
            return None;
        }
        // In this order: what is published in between has its generation before it loses its mark.
        let unpublished = engine.map.unpublished_words().map(|(word, value)| (word as u32, value));
        let mut changed = bits::page_set(&unpublished.collect::<SparseWords>());
        engine.generations.read().since(generation).for_each(|run| changed.insert_range(run));
        Some(changed)
    }
}

impl Engine {
    fn publish(&self, seal: &Seal, generation: Generation) {
        let unpublished: SparseWords =
            self.map.unpublished_words().map(|(word, value)| (word as u32, value)).collect();
        for batch in unpublished.chunks(BATCH) {
            // Alone: between a writer's two marks of one page there must be no room for this.
            let _gate = self.gate.write();
            let at_work = self.at_work.now();
            let mut generations = self.generations.write();
            for (index, _) in batch {
                let word = *index as usize;
                // In this order: a mark is in the present epoch, or that has ended since the seal.
                let since =
                    self.guards.written(word) | seal.later(word) | at_work::bits_of_word(&at_work, word);
                let covered = self.map.unpublished()[word].load(Ordering::Acquire) & !since;
                bits::runs_in_word(word, covered).for_each(|run| generations.record(generation, run));
                self.map.clear_unpublished(word, covered);
            }
        }
        let differs = |pages| bits::any(self.map.unpublished(), pages);
        if let Err(err) = self.ledger.published(differs, || self.make_durable()) {
            // They stay touched: after a loss of power more would be compared than need be.
            tracing::warn!("the disk cannot be synced: {err}");
        }
    }
}
