//! Which bytes of a disk hold data and which are known to be zero.

use std::io;
use std::ops::Range;

use crate::Source;
use crate::bits;
use crate::engine::{Engine, page_bytes, pages_touched};

/// A run of bytes that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many.
    pub bytes: u64,
    /// Whether they are known to be zero (and take no space); otherwise they may be anything.
    pub zero: bool,
}

/// Most extents told at a time.
const MOST: usize = 4096;

/// Extents as they are found, neighbours of a kind joined.
pub(crate) struct Extents {
    found: Vec<Extent>,
    wanted: Range<u64>,
}

impl Extents {
    pub(crate) fn new(wanted: Range<u64>) -> Extents {
        Extents { found: Vec::new(), wanted }
    }

    /// Everything up to `end` that was not told yet is of one kind. False when enough is known.
    #[must_use]
    pub(crate) fn tell(&mut self, end: u64, zero: bool) -> bool {
        let end = end.min(self.wanted.end);
        let bytes = end.saturating_sub(self.wanted.start);
        if bytes > 0 {
            let full = self.found.len() == MOST;
            match self.found.last_mut() {
                Some(last) if last.zero == zero => last.bytes += bytes,
                _ if full => return false,
                _ => self.found.push(Extent { bytes, zero }),
            }
            self.wanted.start = end;
        }
        !self.wanted.is_empty()
    }

    /// As [`tell`](Extents::tell), for a stretch of pages of a source.
    #[must_use]
    pub(crate) fn tell_source(&mut self, source: &dyn Source, pages: Range<u32>) -> bool {
        for run in source.data_runs(pages.start, pages.end) {
            let data = page_bytes(run);
            if !self.tell(data.start, true) || !self.tell(data.end, false) {
                return false;
            }
        }
        self.tell(page_bytes(pages).end, true)
    }

    pub(crate) fn into_vec(self) -> Vec<Extent> {
        self.found
    }
}

impl Engine {
    /// What `bytes` are, from their start on, possibly not to their end.
    pub(crate) fn extents(&self, bytes: Range<u64>) -> io::Result<Vec<Extent>> {
        let mut extents = Extents::new(bytes.clone());
        for (absent, run) in bits::runs(self.map.absent(), pages_touched(bytes)) {
            let more = if absent {
                extents.tell_source(&*self.source()?, run)
            } else {
                self.tell_file(&mut extents, page_bytes(run))?
            };
            if !more {
                break;
            }
        }
        Ok(extents.into_vec())
    }

    fn tell_file(&self, extents: &mut Extents, bytes: Range<u64>) -> io::Result<bool> {
        for data in self.raw.data(bytes.clone()) {
            let data = data?;
            if !extents.tell(data.start, true) || !extents.tell(data.end, false) {
                return Ok(false);
            }
        }
        Ok(extents.tell(bytes.end, true))
    }
}
