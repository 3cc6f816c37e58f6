//! What changes the disk: writes, zeroes, trims.
//!
//! Pages that are present and not sealed are changed without any lock. For the others the change goes word by
//! word, with the word's stripe locked: keep what seals want, bring what is needed of absent pages, change.

use std::io;
use std::ops::Range;

use watari_types::PAGE_SIZE;

use crate::bits;
use crate::engine::{Engine, page_bytes, pages_touched};
use crate::guards::Epoch;

/// How zeros are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroes {
    /// By giving the space back.
    Hole,
    /// Keeping the space allocated, so that a later write cannot find the file system full.
    Allocated,
}

/// A change of a run of bytes. Zeros are only made of whole pages.
#[derive(Clone, Copy)]
enum Change<'a> {
    Write(&'a [u8]),
    Zero { how: Zeroes, only_if_fast: bool },
}

impl Engine {
    /// Writes `data`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.change(offset..offset + data.len() as u64, Change::Write(data))
    }

    /// Makes any bytes zero. With `only_if_fast` it is [`io::ErrorKind::Unsupported`] where the file system
    /// has no quicker way than writing zeros.
    pub(crate) fn zero(&self, bytes: Range<u64>, how: Zeroes, only_if_fast: bool) -> io::Result<()> {
        let Some(whole) = whole_pages(bytes.clone()) else {
            return self.write(bytes.start, &vec![0; (bytes.end - bytes.start) as usize]);
        };
        let inner = page_bytes(whole.clone());
        self.write(bytes.start, &[0; PAGE_SIZE][..(inner.start - bytes.start) as usize])?;
        self.zero_pages(whole, Change::Zero { how, only_if_fast })?;
        self.write(inner.end, &[0; PAGE_SIZE][..(bytes.end - inner.end) as usize])
    }

    /// Gives the space of the whole pages within `bytes` back.
    pub(crate) fn trim(&self, bytes: Range<u64>) -> io::Result<()> {
        whole_pages(bytes).map_or(Ok(()), |pages| {
            self.zero_pages(pages, Change::Zero { how: Zeroes::Hole, only_if_fast: false })
        })
    }

    fn zero_pages(&self, pages: Range<u32>, change: Change<'_>) -> io::Result<()> {
        let allocates = matches!(change, Change::Zero { how: Zeroes::Allocated, .. });
        for (absent, run) in bits::runs(self.map.absent(), pages) {
            if absent || allocates {
                self.change(page_bytes(run), change)?;
                continue;
            }
            // What is a hole already does not change, and must not count as changed: a guest that discards
            // all its free space would otherwise make a snapshot of all that nothing.
            for data in self.raw.data(page_bytes(run)) {
                self.change(page_bytes(pages_touched(data?)), change)?;
            }
        }
        Ok(())
    }

    fn change(&self, bytes: Range<u64>, change: Change<'_>) -> io::Result<()> {
        let pages = pages_touched(bytes.clone());
        let _touching = self.ledger.enter(pages.clone())?;
        let _changing = self.at_work.enter(pages.clone());
        let epoch = self.mark(pages.clone());
        let result = if self.are_special(&epoch, pages.clone()) {
            self.change_by_parts(&epoch, &bytes, change)
        } else {
            self.apply(bytes.clone(), change)
        };
        // Marked also if it failed: part of it may have happened.
        self.mark(pages);
        result
    }

    fn change_by_parts(&self, epoch: &Epoch, bytes: &Range<u64>, change: Change<'_>) -> io::Result<()> {
        for part in bits::parts(pages_touched(bytes.clone())) {
            let inside = page_bytes(part.clone());
            let inside = inside.start.max(bytes.start)..inside.end.min(bytes.end);
            let change = match change {
                Change::Write(data) => Change::Write(
                    &data[(inside.start - bytes.start) as usize..(inside.end - bytes.start) as usize],
                ),
                zero => zero,
            };
            if self.are_special(epoch, part.clone()) {
                self.change_locked(epoch, part, inside, change)?;
            } else {
                self.apply(inside, change)?;
            }
        }
        Ok(())
    }

    /// Changes `bytes`, which touch exactly the pages of `part`, within one word. What seals want that came after the
    /// epoch need not be kept: they find the change at work.
    fn change_locked(
        &self,
        epoch: &Epoch,
        part: Range<u32>,
        bytes: Range<u64>,
        change: Change<'_>,
    ) -> io::Result<()> {
        loop {
            // Room first: waiting for it with the stripe locked would keep out the saver that makes it.
            let mut room = self.guards.reserve(epoch, &part);
            let _stripe = self.stripes.lock(part.start);
            let wanted = epoch.wanted(&part);
            if wanted.count_ones() as usize > room.pages() {
                // Another change was marking while the seal came, and left its mark in between.
                continue;
            }
            let (word, mask) = bits::place(&part);
            for page in bits::runs_in_word(word, wanted).flatten() {
                room.keep(epoch, page, self.read_page(page)?);
            }
            let (first, last) = (part.start, part.end - 1);
            let first_is_partial = bytes.start != page_bytes(first..part.end).start;
            let last_is_partial = bytes.end != page_bytes(first..part.end).end;
            if first_is_partial || (last_is_partial && first == last) {
                self.fill_if_absent(first)?;
            }
            if last_is_partial && first != last {
                self.fill_if_absent(last)?;
            }
            self.apply(bytes, change)?;
            self.arrived(word, mask);
            return Ok(());
        }
    }

    fn fill_if_absent(&self, page: u32) -> io::Result<()> {
        if bits::any(self.map.absent(), page..page + 1) { self.fill(page) } else { Ok(()) }
    }

    fn apply(&self, bytes: Range<u64>, change: Change<'_>) -> io::Result<()> {
        let (how, only_if_fast) = match change {
            Change::Write(data) => return self.raw.write(bytes.start, data),
            Change::Zero { how, only_if_fast } => (how, only_if_fast),
        };
        let done = match how {
            Zeroes::Hole => self.raw.punch(bytes.clone()),
            Zeroes::Allocated => self.raw.zero_range(bytes.clone()),
        };
        match done {
            Err(err) if err.kind() == io::ErrorKind::Unsupported && !only_if_fast => self.write_zeros(bytes),
            other => other,
        }
    }

    /// Makes `bytes` zero, by giving their space back where that can be done.
    pub(crate) fn make_hole(&self, bytes: Range<u64>) -> io::Result<()> {
        self.apply(bytes, Change::Zero { how: Zeroes::Hole, only_if_fast: false })
    }

    /// For file systems that have no quicker way.
    fn write_zeros(&self, bytes: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; (bytes.end - bytes.start).min(1 << 20) as usize];
        let mut at = bytes.start;
        while at < bytes.end {
            let len = (bytes.end - at).min(zeros.len() as u64);
            self.raw.write(at, &zeros[..len as usize])?;
            at += len;
        }
        Ok(())
    }
}

/// The whole pages within `bytes`, if there are any.
fn whole_pages(bytes: Range<u64>) -> Option<Range<u32>> {
    let pages = bytes.start.div_ceil(PAGE_SIZE as u64) as u32..(bytes.end / PAGE_SIZE as u64) as u32;
    (!pages.is_empty()).then_some(pages)
}
