//! Write protection: the kernel protects the pages, lifts the protection of each at its first write without
//! stopping anybody, and `PAGEMAP_SCAN` returns the unprotected ones and protects them again.
//!
//! What an entry of the page table says (the kernel's word for it in capitals):
//!
//! Memory without content of its own yet has no page table, and is left so ([`live`](crate::live)). Elsewhere:
//!
//! | entry | since the last scan |
//! | --- | --- |
//! | not protected, in memory or swapped: `WRITTEN`, `PRESENT` or `SWAPPED` | written |
//! | empty: neither `PRESENT` nor `SWAPPED` | written and then taken out, or dropped: a scan leaves a marker in every entry |
//! | protected, `PRESENT` | not written |
//! | protected, not `PRESENT`: a marker, swapped out, or being moved | not written; but if it was present before, perhaps punched out of the file: [`holes`](crate::holes) |

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd};
use watari_types::{PAGE_SIZE, PageSet};

use crate::birth::RemoteFd;
use crate::holes::{Found, Holes, Stamp};
use crate::live::Live;
use crate::memory::system;
use crate::sys::{self, PageRegion, ScanQuery, WatchMode};
use crate::tracker::check_sets;
use crate::{Backing, Error, ProcessMemory, Range, Tracker, TrackerKind};

const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const FEATURE_WP_ASYNC: u64 = 1 << 15;

const PROTECT_MATCHING: u64 = 1 << 0;
const REFUSE_UNLESS_ASYNC: u64 = 1 << 1;

const WRITTEN: u64 = 1 << 1;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;

/// Everything but "present and still protected", in one walk.
const CHANGED: ScanQuery = ScanQuery {
    flags: PROTECT_MATCHING | REFUSE_UNLESS_ASYNC,
    inverted: PRESENT,
    all_of: 0,
    any_of: WRITTEN | PRESENT,
    returned: WRITTEN | PRESENT | SWAPPED,
};

/// Page tables with something in them, all of it left as it is.
const PRESENT_AT_ALL: ScanQuery =
    ScanQuery { flags: 0, inverted: 0, all_of: 0, any_of: PRESENT | SWAPPED, returned: PRESENT };

/// Entries with nothing in them, all left as it is.
const EMPTY: ScanQuery = ScanQuery {
    flags: 0,
    inverted: PRESENT | SWAPPED,
    all_of: PRESENT | SWAPPED,
    any_of: 0,
    returned: PRESENT,
};

/// What one system call returns at most: 96 KiB of runs.
const REGIONS_AT_ONCE: usize = 4096;

pub(crate) struct WriteProtect {
    pid: u32,
    pagemap: File,
    ranges: Vec<Tracked>,
    regions: Vec<PageRegion>,
}

struct Tracked {
    range: Range,
    live: Live,
    holes: Holes,
}

impl WriteProtect {
    pub(crate) fn arm(memory: &ProcessMemory, uffd: RemoteFd, ranges: &[Range]) -> Result<Self, Error> {
        let pid = memory.pid();
        let failed = |what| move |source| system(what, pid, source);
        let number = ForeignRawFd::from(uffd.0);
        let uffd = pidfd_getfd(memory.pidfd(), number, PidfdGetfdFlags::empty())
            .map_err(|errno| system("taking over the userfaultfd", pid, errno.into()))?;
        enable(uffd.as_fd()).map_err(failed("enabling asynchronous write protection"))?;
        for range in ranges {
            sys::uffd_register(uffd.as_fd(), range.start, range.bytes, WatchMode::Written)
                .map_err(failed("registering a range for write protection"))?;
        }
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(failed("opening the pagemap"))?;
        // The path is looked up by number: only now is it certain whose pagemap that is.
        memory.check_alive()?;
        let mut regions = vec![PageRegion::default(); REGIONS_AT_ONCE];
        let track = |range: &Range| {
            let mut walk = Walk { pid, pagemap: pagemap.as_fd(), range, regions: &mut regions };
            let live = Live::new(range)?;
            let holes = Holes::new(walk.find_untouched(&live)?);
            Ok(Tracked { range: range.clone(), live, holes })
        };
        let tracked = ranges.iter().map(track).collect::<Result<_, Error>>()?;
        let mut tracker = WriteProtect { pid, pagemap, ranges: tracked, regions };
        tracker.scan(&mut vec![PageSet::new(); ranges.len()])?;
        Ok(tracker)
    }
}

impl WriteProtect {
    /// A walk over the memory of a process that is ending meets fewer and fewer pages and no error. Reading the
    /// pagemap comes to its end at once then.
    fn check_memory_is_there(&self) -> Result<(), Error> {
        let pid = self.pid;
        match self.pagemap.read_at(&mut [0; 8], 0) {
            Ok(0) => Err(Error::Gone { pid }),
            Ok(_) => Ok(()),
            Err(source) => Err(system("reading the pagemap", pid, source)),
        }
    }
}

/// `EINVAL` is also the answer when another keeper enabled the features before us. Whether it was these is
/// found out by the first scan, which is refused on a range without asynchronous protection.
pub(crate) fn enable(uffd: BorrowedFd<'_>) -> std::io::Result<()> {
    let features = FEATURE_PAGEFAULT_FLAG_WP
        | FEATURE_MISSING_SHMEM
        | FEATURE_WP_HUGETLBFS_SHMEM
        | FEATURE_WP_UNPOPULATED
        | FEATURE_WP_ASYNC;
    match sys::uffd_enable(uffd, features) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

impl Tracker for WriteProtect {
    fn kind(&self) -> TrackerKind {
        TrackerKind::WriteProtect
    }

    fn scan(&mut self, into: &mut [PageSet]) -> Result<(), Error> {
        check_sets(self.ranges.len(), into)?;
        for (Tracked { range, live, holes }, into) in self.ranges.iter_mut().zip(into) {
            let mut walk =
                Walk { pid: self.pid, pagemap: self.pagemap.as_fd(), range, regions: &mut self.regions };
            let stamp = Stamp::of(range)?;
            let mut found = Found::default();
            let walked = walk.find_touched(live).and_then(|()| walk.find_changed(live, &mut found));
            into.union_with(&found.written);
            into.union_with(&found.empty);
            match walked.and_then(|()| holes.update(range, stamp, &found)) {
                Ok(punched) => into.union_with(&punched),
                Err(error) => {
                    // What was reported as written above must not stay known as a hole.
                    *holes = Holes::default();
                    return Err(error);
                }
            }
        }
        self.check_memory_is_there()
    }
}

/// One pass over a range.
struct Walk<'a> {
    pid: u32,
    pagemap: BorrowedFd<'a>,
    range: &'a Range,
    regions: &'a mut [PageRegion],
}

impl Walk<'_> {
    /// Adds to `live` what came to life since the last scan. The walk after it finds all of a new page table's
    /// entries unprotected, so it reports them all.
    fn find_touched(&mut self, live: &mut Live) -> Result<(), Error> {
        for gap in live.gaps() {
            match &self.range.backing {
                // Whatever is written is in the file, also if it was taken out of the page table again.
                Backing::Shared(file) => live.find_data(self.range, file.as_fd(), gap)?,
                // What is written are copies, which stay in the page table until they are dropped, and what is
                // dropped is as it was before.
                Backing::Private(_) | Backing::Anonymous => {
                    self.run(gap, &PRESENT_AT_ALL, |region, _| live.add(region.start..region.end))?;
                }
            }
        }
        Ok(())
    }

    /// Adds everything but what is in memory and was not written.
    fn find_changed(&mut self, live: &Live, found: &mut Found) -> Result<(), Error> {
        for addresses in live.runs() {
            self.run(addresses, &CHANGED, |region, pages| {
                if region.categories & PRESENT == 0 {
                    found.absent.insert_range(pages.clone());
                }
                if region.categories & (PRESENT | SWAPPED) == 0 {
                    found.empty.insert_range(pages);
                } else if region.categories & WRITTEN != 0 {
                    found.written.insert_range(pages);
                }
            })?;
        }
        Ok(())
    }

    /// Pages that hold nothing of the process's own, as far as their entries prove it. Where a file can be asked
    /// for each page, nothing needs to be known beforehand.
    fn find_untouched(&mut self, live: &Live) -> Result<PageSet, Error> {
        let mut untouched = PageSet::new();
        if self.range.backing.shared().is_none() {
            for addresses in live.runs() {
                self.run(addresses, &EMPTY, |_, pages| untouched.insert_range(pages))?;
            }
        }
        Ok(untouched)
    }

    fn run(
        &mut self,
        addresses: std::ops::Range<u64>,
        query: &ScanQuery,
        mut found: impl FnMut(PageRegion, std::ops::Range<u32>),
    ) -> Result<(), Error> {
        let mut at = addresses.start;
        while at < addresses.end {
            let (filled, walk_end) = sys::pagemap_scan(self.pagemap, at..addresses.end, query, self.regions)
                .map_err(|source| system("scanning for written pages", self.pid, source))?;
            for region in &self.regions[..filled] {
                found(*region, self.page(region.start)..self.page(region.end));
            }
            if walk_end <= at {
                let source = std::io::Error::other("the walk over the page table does not advance");
                return Err(system("scanning for written pages", self.pid, source));
            }
            at = walk_end;
        }
        Ok(())
    }

    fn page(&self, address: u64) -> u32 {
        // A range has no more pages than fit, and the kernel returns addresses within it.
        ((address - self.range.start) / PAGE_SIZE as u64) as u32
    }
}
