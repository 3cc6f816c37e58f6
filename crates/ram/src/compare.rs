//! Comparing: for hosts without write protection. Keeps a fingerprint of every page and reads all of them at
//! every scan.
//!
//! The fingerprint is XXH3's 128 bits: as fast as memory, and two contents meet by chance once in 10^38. It
//! does not withstand somebody who looks for two such contents, but a guest that does so forges only its own
//! snapshot, and only where this fallback is used.

use std::sync::Mutex;
use std::thread;

use watari_types::{PAGE_SIZE, PageSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::tracker::check_sets;
use crate::{Error, ProcessMemory, Range, Tracker, TrackerKind};

/// Pages read at once by each thread: 1 MiB.
const CHUNK_PAGES: usize = 256;
/// Hashing is bound by memory long before it has used this many cores.
const MOST_THREADS: usize = 8;

pub(crate) struct Compare {
    memory: ProcessMemory,
    ranges: Vec<Tracked>,
}

struct Tracked {
    range: Range,
    fingerprints: Vec<u128>,
    /// Pages whose reading by the caller was not declared sound. The page may have been read with a content
    /// that was there for a moment only, between two scans, so its fingerprint proves nothing.
    unsettled: PageSet,
}

impl Compare {
    pub(crate) fn arm(memory: ProcessMemory, ranges: Vec<Range>) -> Result<Self, Error> {
        let mut tracked = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut fingerprints = vec![0; range.pages() as usize];
            refresh(&memory, &range, &mut fingerprints).1?;
            let unsettled = PageSet::all(range.pages());
            tracked.push(Tracked { range, fingerprints, unsettled });
        }
        Ok(Compare { memory, ranges: tracked })
    }
}

impl Tracker for Compare {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Compare
    }

    fn scan(&mut self, into: &mut [PageSet]) -> Result<(), Error> {
        check_sets(self.ranges.len(), into)?;
        for (tracked, into) in self.ranges.iter_mut().zip(into) {
            let (changed, result) = refresh(&self.memory, &tracked.range, &mut tracked.fingerprints);
            tracked.unsettled.union_with(&changed);
            into.union_with(&tracked.unsettled);
            result?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.ranges.iter_mut().for_each(|tracked| tracked.unsettled.clear());
    }
}

/// Brings the fingerprints up to date on all cores. The pages whose fingerprint changed, also if reading some
/// others failed.
fn refresh(memory: &ProcessMemory, range: &Range, fingerprints: &mut [u128]) -> (PageSet, Result<(), Error>) {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let chunks = Mutex::new(fingerprints.chunks_mut(CHUNK_PAGES).enumerate());
    let next = || chunks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let work = || {
        let mut changed = PageSet::new();
        let mut buffer = vec![0; CHUNK_PAGES * PAGE_SIZE];
        while let Some((index, chunk)) = next() {
            let first = (index * CHUNK_PAGES) as u32;
            let pages: Vec<u32> = (first..).take(chunk.len()).collect();
            let bytes = &mut buffer[..chunk.len() * PAGE_SIZE];
            if let Err(error) = memory.read_pages(range, &pages, bytes) {
                return (changed, Err(error));
            }
            let contents = bytes.as_chunks::<PAGE_SIZE>().0.iter().map(|page| xxh3_128(page));
            for ((page, fingerprint), now) in pages.iter().zip(chunk).zip(contents) {
                if std::mem::replace(fingerprint, now) != now {
                    changed.insert(*page);
                }
            }
        }
        (changed, Ok(()))
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let (mut changed, mut result) = work();
        for other in others {
            let (more, outcome) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            changed.union_with(&more);
            result = result.and(outcome);
        }
        (changed, result)
    })
}
