//! A medium that remembers everything that happened to it, so that it can be cut after any event.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use watari_types::PAGE_SIZE;

use crate::medium::{Medium, SyncedWords};

pub(super) const SECTOR: usize = 512;

/// What happened, in order.
pub(super) enum Event {
    /// Sectors of the content were written.
    Content {
        at: usize,
        data: Vec<u8>,
    },
    ContentSynced,
    /// Words of the ledger were stored: all of them as they were then.
    Ledger(Vec<u64>),
    LedgerSynced,
    /// The operation with this number ended.
    Done(usize),
}

/// The content and the ledger of a disk, and what happened to them.
pub(super) struct Recorder {
    content: Mutex<Vec<u8>>,
    ledger: Vec<AtomicU64>,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    pub(super) fn new(content: Vec<u8>, ledger: &[u64]) -> Arc<Recorder> {
        let ledger = ledger.iter().map(|word| AtomicU64::new(*word)).collect();
        Arc::new(Recorder { content: Mutex::new(content), ledger, events: Mutex::default() })
    }

    pub(super) fn done(&self, operation: usize) {
        self.note_ledger();
        self.events.lock().push(Event::Done(operation));
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }

    pub(super) fn ledger(&self) -> Vec<u64> {
        self.ledger.iter().map(|word| word.load(Ordering::Acquire)).collect()
    }

    fn note_ledger(&self) {
        let now = self.ledger();
        let mut events = self.events.lock();
        let last = events.iter().rev().find_map(|event| match event {
            Event::Ledger(words) => Some(words),
            _ => None,
        });
        if last != Some(&now) {
            events.push(Event::Ledger(now));
        }
    }

    fn change(&self, at: usize, data: Vec<u8>) {
        assert!(
            at.is_multiple_of(SECTOR) && data.len().is_multiple_of(SECTOR),
            "what is written is whole sectors"
        );
        self.note_ledger();
        self.content.lock()[at..at + data.len()].copy_from_slice(&data);
        self.events.lock().push(Event::Content { at, data });
    }
}

/// The recorder as a disk's content.
pub(super) struct Content(pub(super) Arc<Recorder>);

impl Medium for Content {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0.content.lock()[offset as usize..][..into.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(offset as usize, data.to_vec());
        Ok(())
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        self.0.change(bytes.start as usize, vec![0; (bytes.end - bytes.start) as usize]);
        Ok(())
    }

    fn zero_range(&self, bytes: Range<u64>) -> io::Result<()> {
        self.punch(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.note_ledger();
        self.0.events.lock().push(Event::ContentSynced);
        Ok(())
    }

    fn next_data(&self, bytes: Range<u64>) -> io::Result<Option<Range<u64>>> {
        let content = self.0.content.lock();
        let is_data =
            |page: &u64| content[*page as usize * PAGE_SIZE..][..PAGE_SIZE].iter().any(|byte| *byte != 0);
        let page = PAGE_SIZE as u64;
        let mut pages = bytes.start / page..bytes.end.div_ceil(page);
        let Some(first) = pages.find(is_data) else { return Ok(None) };
        let end = pages.find(|page| !is_data(page)).map_or(bytes.end, |page_after| page_after * page);
        Ok(Some((first * page).max(bytes.start)..end.min(bytes.end)))
    }
}

/// The recorder as a disk's ledger.
pub(super) struct LedgerWords(pub(super) Arc<Recorder>);

impl SyncedWords for LedgerWords {
    fn words(&self) -> &[AtomicU64] {
        &self.0.ledger
    }

    fn sync(&self) -> io::Result<()> {
        self.0.note_ledger();
        self.0.events.lock().push(Event::LedgerSynced);
        Ok(())
    }
}

/// What is on the medium, and what may or may not be: per sector, every version since the last sync.
pub(super) struct Remains {
    content: Versions,
    ledger: Versions,
}

struct Versions {
    synced: Vec<u8>,
    /// In order, the newest last.
    since: Vec<(usize, Vec<u8>)>,
}

/// How what was not synced is treated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Each sector has a version of its own.
    Torn(u64),
}

impl Remains {
    pub(super) fn new(content: Vec<u8>, ledger: &[u64]) -> Remains {
        let versions = |synced| Versions { synced, since: Vec::new() };
        Remains { content: versions(content), ledger: versions(bytes_of(ledger)) }
    }

    pub(super) fn follow(&mut self, event: &Event) {
        match event {
            Event::Content { at, data } => self.content.write(*at, data),
            Event::ContentSynced => self.content.sync(),
            Event::Ledger(words) => self.ledger.write(0, &bytes_of(words)),
            Event::LedgerSynced => self.ledger.sync(),
            Event::Done(_) => {}
        }
    }

    /// Content and ledger as they may be found.
    pub(super) fn found(&self, fate: Fate) -> (Vec<u8>, Vec<u64>) {
        let ledger = self.ledger.found(fate);
        let words = ledger.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        (self.content.found(fate), words.collect())
    }
}

impl Versions {
    fn write(&mut self, at: usize, data: &[u8]) {
        self.since
            .extend(data.chunks(SECTOR).enumerate().map(|(n, sector)| (at + n * SECTOR, sector.to_vec())));
    }

    fn sync(&mut self) {
        for (at, sector) in self.since.drain(..) {
            self.synced[at..at + SECTOR].copy_from_slice(&sector);
        }
    }

    fn found(&self, fate: Fate) -> Vec<u8> {
        let mut found = self.synced.clone();
        let mut random = match fate {
            Fate::Lost => return found,
            Fate::Kept => None,
            Fate::Torn(seed) => Some(Random(seed | 1)),
        };
        // A version that is not taken leaves an older one: over all of them, any of a sector's may be what is left.
        for (at, sector) in &self.since {
            if random.as_mut().is_none_or(|random| random.below(2) == 0) {
                found[*at..at + SECTOR].copy_from_slice(sector);
            }
        }
        found
    }
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// xorshift64*: quick and repeatable.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}
