//! Pages that were taken out of the file behind a range (`MADV_REMOVE`, `FALLOC_FL_PUNCH_HOLE`: a balloon, free
//! page reporting) while they were protected. Their content is zero now, and yet their entry in the page table
//! says only "protected and not in memory", as for a page that was never touched, unmapped, swapped out or just being
//! moved to another place in memory. The file itself knows. Where there is none to ask, a page that is not in memory
//! counts, unless nothing was ever written to it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::Errno;
use watari_types::{PAGE_SIZE, PageSet};

use crate::{Error, Range};

/// A timestamp younger than this may be given to a later change as well: before Linux 6.13 files are stamped
/// by a clock that ticks every 1 to 10 ms.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// What a walk over a page table found.
#[derive(Default)]
pub(crate) struct Found {
    /// Pages written since the last walk.
    pub(crate) written: PageSet,
    /// Pages with nothing at all in their entries.
    pub(crate) empty: PageSet,
    /// Pages not in memory, empty and written ones included.
    pub(crate) absent: PageSet,
}

/// What is known about one range between two scans. By default, nothing.
#[derive(Default)]
pub(crate) struct Holes {
    /// Pages not in memory that hold nothing of the process's own. With a file: whose taking out, if any, was
    /// reported.
    known: PageSet,
    /// The file when `known` was true of it.
    stamp: Option<Stamp>,
}

/// When the file's data or extents were last changed (writing through a mapping does not count).
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    changed: (i64, u64),
    /// Whether the next change is sure to have another stamp.
    distinct: bool,
}

impl Stamp {
    /// To be taken *before* the walk over the page table. Punching a hole first empties the entries, then
    /// stamps the file, so what the walk meets too early is found with the next scan's stamp.
    pub(crate) fn of(range: &Range) -> Result<Option<Stamp>, Error> {
        let Some(file) = range.backing.shared() else { return Ok(None) };
        let stat = fstat(file).map_err(|errno| backing_error(range, 0, errno))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        let then = Duration::new(u64::try_from(changed.0).unwrap_or(u64::MAX), changed.1 as u32);
        let distinct = now.checked_sub(then).is_some_and(|age| age > CLOCK_TICK);
        Ok(Some(Stamp { changed, distinct }))
    }

    fn is_unchanged_since(&self, earlier: Option<Stamp>) -> bool {
        earlier.is_some_and(|earlier| earlier.distinct && earlier.changed == self.changed)
    }
}

impl Holes {
    /// Before the first walk. `untouched` pages hold nothing of the process's own, and the caller knows that.
    pub(crate) fn new(untouched: PageSet) -> Self {
        Holes { known: untouched, stamp: None }
    }

    /// The pages that may have been taken out since the last update, given what a walk found and the stamp from
    /// before it. After an error everything is unknown again.
    pub(crate) fn update(
        &mut self,
        range: &Range,
        stamp: Option<Stamp>,
        found: &Found,
    ) -> Result<PageSet, Error> {
        match (range.backing.shared(), stamp) {
            (Some(file), Some(stamp)) => self.update_with(range, file.as_fd(), stamp, found),
            _ => Ok(self.update_without_a_file(found)),
        }
    }

    /// A page that is not in memory may be swapped out, or on its way to another place: its content is unharmed, but
    /// it may be dropped just then and look the same in the next walk. So it is not known from then on.
    fn update_without_a_file(&mut self, found: &Found) -> PageSet {
        let mut gone = found.absent.clone();
        gone.subtract(&self.known);
        self.known = found.absent.clone();
        self.known.subtract(&gone);
        self.known.subtract(&found.written);
        gone
    }

    fn update_with(
        &mut self,
        range: &Range,
        file: BorrowedFd<'_>,
        stamp: Stamp,
        found: &Found,
    ) -> Result<PageSet, Error> {
        let before = std::mem::take(self);
        // A page that was written since it was known to be out may have got content by that.
        let mut changed = found.written.clone();
        changed.union_with(&found.empty);
        let mut candidates = found.absent.clone();
        candidates.subtract(&before.known);
        candidates.union_with(&changed);
        self.known = found.absent.clone();
        self.known.subtract(&candidates);

        let mut gone = PageSet::new();
        if !stamp.is_unchanged_since(before.stamp) {
            changed.subtract(&found.absent);
            candidates.subtract(&changed);
            gone = holes_among(range, file, &candidates)?;
            self.known.union_with(&gone);
        }
        self.stamp = Some(stamp);
        Ok(gone)
    }
}

/// Those of `pages` that are holes in the file. Asks once per extent, not per page.
fn holes_among(range: &Range, file: BorrowedFd<'_>, pages: &PageSet) -> Result<PageSet, Error> {
    const PAGE: u64 = PAGE_SIZE as u64;
    let find = |from: SeekFrom, offset| match seek(file, from) {
        Ok(found) => Ok(found / PAGE),
        Err(Errno::NXIO) => Ok(u64::MAX),
        Err(errno) => Err(backing_error(range, offset, errno)),
    };
    let mut holes = PageSet::new();
    // The next data as far as it was looked for: up to its start there is a hole.
    let mut data = 0..0;
    for run in pages.runs() {
        let (mut at, end) = (u64::from(run.start), u64::from(run.end));
        while at < end {
            if at >= data.end {
                let start = find(SeekFrom::Data(at * PAGE), at * PAGE)?;
                // Beyond this run it does not matter where the data ends, and finding out takes time.
                let past =
                    if start < end { find(SeekFrom::Hole(start * PAGE), start * PAGE)? } else { start };
                data = start..past;
            }
            if at < data.start {
                let hole = at..end.min(data.start);
                holes.insert_range(hole.start as u32..hole.end as u32);
                at = hole.end;
            } else {
                at = end.min(data.end);
            }
        }
    }
    Ok(holes)
}

pub(crate) fn backing_error(range: &Range, offset: u64, errno: Errno) -> Error {
    Error::Backing { range: range.name.clone(), offset, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
    use rustix::io::pwrite;
    use watari_types::RegionName;

    use super::*;
    use crate::Backing;

    const PAGES: u32 = 200;

    fn range_with_data(data: &PageSet) -> Range {
        let file = memfd_create("holes", MemfdFlags::CLOEXEC).unwrap();
        let bytes = u64::from(PAGES) * PAGE_SIZE as u64;
        ftruncate(&file, bytes).unwrap();
        data.iter().for_each(|page| assert_eq!(pwrite(&file, b"x", offset(page)), Ok(1)));
        Range {
            backing: Backing::Shared(Arc::new(file)),
            ..Range::new(RegionName::ram("m0").unwrap(), 0, bytes)
        }
    }

    fn offset(page: u32) -> u64 {
        u64::from(page) * PAGE_SIZE as u64
    }

    fn set(pages: Vec<(u32, u32)>) -> PageSet {
        pages.iter().flat_map(|(start, count)| *start..(start + count).min(PAGES)).collect()
    }

    proptest! {
        #[test]
        fn a_page_is_a_hole_if_and_only_if_it_has_no_data(
            data in prop::collection::vec((0..PAGES, 1..20u32), 0..20),
            asked in prop::collection::vec((0..PAGES, 1..20u32), 0..20),
        ) {
            let (data, asked) = (set(data), set(asked));
            let range = range_with_data(&data);
            let file = range.backing.shared().unwrap();
            let mut wanted = asked.clone();
            wanted.subtract(&data);
            prop_assert_eq!(holes_among(&range, file.as_fd(), &asked).unwrap(), wanted);
        }
    }

    #[test]
    fn an_old_stamp_is_trusted_until_a_hole_is_punched_and_a_fresh_one_never() {
        let range = range_with_data(&PageSet::all(PAGES));
        let fresh = Stamp::of(&range).unwrap().unwrap();
        let old = Stamp { distinct: true, ..fresh };
        let again = Stamp::of(&range).unwrap().unwrap();
        assert!(again.is_unchanged_since(Some(old)));
        assert!(!again.is_unchanged_since(Some(Stamp { distinct: false, ..fresh })));
        assert!(!again.is_unchanged_since(None));
        // A clock that ticks: the stamp differs as soon as the tick does.
        while Stamp::of(&range).unwrap().unwrap().changed == old.changed {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(range.backing.shared().unwrap(), how, 0, PAGE_SIZE as u64).unwrap();
        }
        assert!(!Stamp::of(&range).unwrap().unwrap().is_unchanged_since(Some(old)));
    }

    #[test]
    fn without_a_file_to_ask_every_page_that_is_not_in_memory_counts_unless_it_was_never_touched() {
        let range = Range::new(RegionName::ram("m0").unwrap(), 0, offset(PAGES));
        let mut holes = Holes::new(set(vec![(0, 3)]));
        let mut gone = |written, absent| {
            let found = Found { written: set(written), empty: PageSet::new(), absent: set(absent) };
            holes.update(&range, None, &found).unwrap().iter().collect::<Vec<_>>()
        };
        assert_eq!(gone(vec![], vec![(0, 3)]), [0; 0]);
        assert_eq!(gone(vec![(0, 1)], vec![(1, 2)]), [0; 0], "0 has content now");
        assert_eq!(gone(vec![], vec![(0, 3)]), [0], "moved, swapped out or dropped");
        assert_eq!(
            gone(vec![], vec![(0, 3)]),
            [0],
            "and since it may only have been moved, perhaps dropped now"
        );
        assert_eq!(gone(vec![(1, 1)], vec![(0, 3)]), [0], "1 is in swap, written");
        assert_eq!(gone(vec![], vec![(0, 3)]), [0, 1]);
    }
}
