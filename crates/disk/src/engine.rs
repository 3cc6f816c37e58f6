//! The engine's state, and how a request finds its pages: reads, fills, and what a change has to do before
//! and after.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use watari_types::{Generation, Generations, PAGE_SIZE, Page};

use crate::at_work::AtWork;
use crate::bits::{self, WORD_PAGES};
use crate::flush::Flusher;
use crate::guards::{Epoch, Guards, Stripes};
use crate::ledger::Ledger;
use crate::map::Map;
use crate::medium::Medium;
use crate::written::Written;
use crate::{Base, Source};

/// Old pages kept in memory for seals at most: 64 MiB.
const KEPT_PAGES: usize = (64 << 20) / PAGE_SIZE;

/// Everything the clones of a [`Disk`](crate::Disk) share.
///
/// Locks are taken in this order, and none is held while waiting for the saver: a stripe, the gate, the guards or the
/// generations.
pub(crate) struct Engine {
    pub(crate) raw: Box<dyn Medium>,
    pub(crate) map: Map,
    pub(crate) ledger: Ledger,
    /// Pages that came into the raw file and have not been noted in the ledger.
    arrivals: Written,
    /// Held alone from taking the arrivals until they are noted: a flush that finds none left must not overtake that.
    noting: RwLock<()>,
    pub(crate) at_work: AtWork,
    /// The snapshot that the disk was opened with. What changed up to then is not known here.
    pub(crate) opened_at: Generation,
    /// When what changed since then, and is in the newest published snapshot, changed last.
    pub(crate) generations: RwLock<Generations>,
    pub(crate) guards: Guards,
    pub(crate) stripes: Stripes,
    /// Held shared for the instants in which a change leaves its marks, and pages that arrived theirs; held alone by who
    /// takes such marks away. Never held across I/O.
    pub(crate) gate: RwLock<()>,
    pub(crate) source: RwLock<Option<Arc<dyn Source>>>,
    pub(crate) flusher: Flusher,
    /// Counts requests, so that the hydrator notices the guest.
    pub(crate) requests: AtomicU64,
}

impl Engine {
    pub(crate) fn new(raw: Box<dyn Medium>, map: Map, ledger: Ledger, base: Option<Base>) -> Engine {
        let pages = map.pages();
        let (source, opened_at) = base.map(|base| (base.source, base.generation)).unzip();
        let arrivals = Written::new(pages);
        // What a process that was killed had brought and not noted.
        for (word, noted) in ledger.arrived().unwrap_or_default().iter().enumerate() {
            let absent = map.absent()[word].load(Ordering::Acquire);
            let bits_of_pages =
                bits::place(&(word as u32 * WORD_PAGES..pages.min((word as u32 + 1) * WORD_PAGES))).1;
            let come = !absent & !noted.load(Ordering::Acquire) & bits_of_pages;
            bits::runs_in_word(word, come).for_each(|run| arrivals.mark(run));
        }
        Engine {
            raw,
            map,
            ledger,
            arrivals,
            noting: RwLock::new(()),
            at_work: AtWork::default(),
            opened_at: opened_at.unwrap_or_default(),
            generations: RwLock::default(),
            guards: Guards::new(pages, KEPT_PAGES),
            stripes: Stripes::new(),
            gate: RwLock::new(()),
            source: RwLock::new(source),
            flusher: Flusher::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// Refuses a request that reaches beyond the end of the disk, and counts it otherwise.
    pub(crate) fn admit(&self, offset: u64, len: u64) -> io::Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match offset.checked_add(len) {
            Some(end) if end <= self.map.bytes() => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} bytes at {offset} reach beyond the disk's {} bytes", self.map.bytes()),
            )),
        }
    }

    /// Whether these bytes can be read, or written, without a source and without keeping what they were.
    pub(crate) fn is_at_hand(&self, offset: u64, len: u64, to_write: bool) -> bool {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.map.bytes()) else { return true };
        let pages = pages_touched(offset..end);
        let is_wanted = to_write && self.guards.wants_any(pages.clone());
        !is_wanted && !bits::any(self.map.absent(), pages)
    }

    pub(crate) fn source(&self) -> io::Result<Arc<dyn Source>> {
        self.source.read().clone().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the page is absent and the disk has no source for it")
        })
    }

    /// Reads any bytes. No lock: a page only ever goes from absent to present, and is whole before it does.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset + into.len() as u64;
        for (absent, run) in bits::runs(self.map.absent(), pages_touched(offset..end)) {
            let bytes = page_bytes(run);
            let bytes = bytes.start.max(offset)..bytes.end.min(end);
            let into = &mut into[(bytes.start - offset) as usize..(bytes.end - offset) as usize];
            if absent {
                Self::read_source(&*self.source()?, bytes.start, into)?
            } else {
                self.raw.read(bytes.start, into)?
            }
        }
        Ok(())
    }

    /// Reads one page.
    pub(crate) fn read_page(&self, page: u32) -> io::Result<Page> {
        let mut content = [0; PAGE_SIZE];
        self.read(page_bytes(page..page + 1).start, &mut content)?;
        Ok(content)
    }

    /// Reads any bytes of a source, which itself reads whole pages.
    pub(crate) fn read_source(source: &dyn Source, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let read = |offset: u64, into: &mut [u8]| source.read((offset / PAGE_SIZE as u64) as u32, into);
        let skip = (offset % PAGE_SIZE as u64) as usize;
        let (head, rest) = match skip {
            0 => into.split_at_mut(0),
            _ => into.split_at_mut((PAGE_SIZE - skip).min(into.len())),
        };
        if !head.is_empty() {
            let mut page = [0; PAGE_SIZE];
            read(offset, &mut page)?;
            head.copy_from_slice(&page[skip..skip + head.len()]);
        }
        let offset = offset + head.len() as u64;
        let (whole, tail) = rest.split_at_mut(rest.len() / PAGE_SIZE * PAGE_SIZE);
        if !whole.is_empty() {
            read(offset, whole)?;
        }
        if !tail.is_empty() {
            let mut page = [0; PAGE_SIZE];
            read(offset + whole.len() as u64, &mut page)?;
            tail.copy_from_slice(&page[..tail.len()]);
        }
        Ok(())
    }

    /// Brings one absent page into the file, still marked absent. Its stripe must be locked.
    pub(crate) fn fill(&self, page: u32) -> io::Result<()> {
        let mut content = [0; PAGE_SIZE];
        self.source()?.read(page, &mut content)?;
        self.raw.write(page_bytes(page..page + 1).start, &content)
    }

    /// Records that pages of one word are in the raw file now, where they were absent.
    pub(crate) fn arrived(&self, word: usize, mask: u64) {
        let come = self.map.absent()[word].load(Ordering::Acquire) & mask;
        if come == 0 {
            return;
        }
        {
            let _gate = self.gate.read();
            bits::runs_in_word(word, come).for_each(|run| self.arrivals.mark(run));
        }
        self.map.set_present(word, come);
    }

    /// Everything done before is on the medium when this returns, and known to be.
    pub(crate) fn make_durable(&self) -> io::Result<()> {
        {
            let _nobody_notes = self.noting.read();
            if self.arrivals.is_empty() {
                return self.raw.sync_data();
            }
        }
        let _alone = self.noting.write();
        // Before the sync: what comes after it began may not be on the medium.
        let arrivals = {
            let _gate = self.gate.write();
            self.arrivals.take()
        };
        let noted = self.raw.sync_data().and_then(|()| self.ledger.note_arrived(&arrivals));
        if noted.is_err() {
            let _gate = self.gate.read();
            for (word, value) in arrivals {
                bits::runs_in_word(word as usize, value).for_each(|run| self.arrivals.mark(run));
            }
        }
        noted
    }

    /// Leaves the marks of a change to `pages`, and returns the epoch they are in.
    ///
    /// Done before the change, so that a process killed in the middle of it has not forgotten which pages it
    /// was at, and after it, so that no scan during the change is the last to have seen it.
    pub(crate) fn mark(&self, pages: Range<u32>) -> Arc<Epoch> {
        // The map is a file: what may have to wait for one happens before the gate, where in all likelihood
        // nothing is left to store then.
        self.map.mark_unpublished(pages.clone());
        let _gate = self.gate.read();
        self.map.mark_unpublished(pages.clone());
        self.guards.mark(pages)
    }

    /// Whether some of `pages` must be kept before they change, or are absent.
    pub(crate) fn are_special(&self, epoch: &Epoch, pages: Range<u32>) -> bool {
        epoch.wants_any(pages.clone()) || bits::any(self.map.absent(), pages)
    }
}

/// The pages that a run of bytes lies in.
pub(crate) fn pages_touched(bytes: Range<u64>) -> Range<u32> {
    (bytes.start / PAGE_SIZE as u64) as u32..bytes.end.div_ceil(PAGE_SIZE as u64) as u32
}

/// The bytes of a run of pages.
pub(crate) fn page_bytes(pages: Range<u32>) -> Range<u64> {
    u64::from(pages.start) * PAGE_SIZE as u64..u64::from(pages.end) * PAGE_SIZE as u64
}
