//! Which parts of a range are worth a walk entry by entry. A page table holds 512 entries, so memory comes in
//! chunks of 2 MiB. Most of a large machine's memory is not touched for long; such chunks are left without a page
//! table and found, once there is something in them, without looking at each of their pages. So a scan costs what
//! is there, not what there could be.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use watari_types::PageSet;

use crate::holes::backing_error;
use crate::{Backing, Error, Range};

/// What one page table maps.
const CHUNK_BYTES: u64 = 2 << 20;

/// The chunks of one range that have, or had, content of their own.
pub(crate) struct Live {
    /// Numbered from the one that holds the range's first byte.
    chunks: PageSet,
    addresses: std::ops::Range<u64>,
}

impl Live {
    /// What lives before the process does anything: of a file mapped privately, what the file holds; of memory
    /// without a file, everything, since nothing tells.
    pub(crate) fn new(range: &Range) -> Result<Live, Error> {
        let mut live = Live { chunks: PageSet::new(), addresses: range.start..range.end() };
        match &range.backing {
            Backing::Anonymous => live.add(range.start..range.end()),
            Backing::Private(file) => live.find_data(range, file.as_fd(), range.start..range.end())?,
            Backing::Shared(_) => {}
        }
        Ok(live)
    }

    /// Adds the chunks among `addresses` in which the range's file has data.
    pub(crate) fn find_data(
        &mut self,
        range: &Range,
        file: BorrowedFd<'_>,
        addresses: std::ops::Range<u64>,
    ) -> Result<(), Error> {
        let mut at = addresses.start;
        while at < addresses.end {
            let offset = at - range.start;
            let data = match seek(file, SeekFrom::Data(offset)) {
                Ok(data) => range.start + data,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(backing_error(range, offset, errno)),
            };
            if data >= addresses.end {
                break;
            }
            self.add(data..data + 1);
            // What else this chunk holds does not matter.
            at = (data / CHUNK_BYTES + 1) * CHUNK_BYTES;
        }
        Ok(())
    }

    /// Adds the chunks that hold any of `addresses`.
    pub(crate) fn add(&mut self, addresses: std::ops::Range<u64>) {
        let first = self.addresses.start / CHUNK_BYTES;
        let chunks = addresses.start / CHUNK_BYTES - first..(addresses.end - 1) / CHUNK_BYTES + 1 - first;
        self.chunks.insert_range(chunks.start as u32..chunks.end as u32);
    }

    /// The addresses that live, in ascending runs.
    pub(crate) fn runs(&self) -> Vec<std::ops::Range<u64>> {
        let base = self.addresses.start / CHUNK_BYTES;
        let address = |chunk: u32| {
            ((base + u64::from(chunk)) * CHUNK_BYTES).clamp(self.addresses.start, self.addresses.end)
        };
        self.chunks.runs().map(|run| address(run.start)..address(run.end)).collect()
    }

    /// The addresses between these, in ascending runs.
    pub(crate) fn gaps(&self) -> Vec<std::ops::Range<u64>> {
        let (start, end) = (self.addresses.start, self.addresses.end);
        let runs = self.runs();
        let starts = std::iter::once(start).chain(runs.iter().map(|run| run.end));
        let ends = runs.iter().map(|run| run.start).chain(std::iter::once(end));
        starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use watari_types::{PAGE_SIZE, RegionName};

    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn range(start_page: u64, pages: u64, data: &[u64]) -> Range {
        let file = File::from(memfd_create("live", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(pages * PAGE).unwrap();
        data.iter().for_each(|page| file.write_all_at(b"x", (page % pages) * PAGE).unwrap());
        let plain = Range::new(RegionName::ram("m0").unwrap(), start_page * PAGE, pages * PAGE);
        Range { backing: Backing::Private(Arc::new(file.into())), ..plain }
    }

    proptest! {
        #[test]
        fn just_the_chunks_with_data_live(
            start_page in 0..2000u64,
            pages in 1..5000u64,
            data in prop::collection::vec(0..5000u64, 0..6),
        ) {
            let range = range(start_page, pages, &data);
            let live = Live::new(&range).unwrap();
            let runs = live.runs();
            let mut all = [runs.clone(), live.gaps()].concat();
            all.sort_by_key(|run| run.start);
            prop_assert_eq!(all.first().unwrap().start, range.start);
            prop_assert_eq!(all.last().unwrap().end, range.end());
            prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(all.iter().all(|run| !run.is_empty()));
            let chunk = |address: u64| address / CHUNK_BYTES;
            for page in 0..pages {
                let address = range.start + page * PAGE;
                let wanted = data.iter().any(|d| chunk(range.start + d % pages * PAGE) == chunk(address));
                prop_assert_eq!(runs.iter().any(|run| run.contains(&address)), wanted);
            }
        }
    }

    #[test]
    fn without_a_file_all_of_a_range_lives() {
        let range = Range::new(RegionName::ram("m0").unwrap(), 3 * PAGE, 1000 * PAGE);
        let live = Live::new(&range).unwrap();
        assert_eq!(live.runs().as_slice(), std::slice::from_ref(&(range.start..range.end())));
        assert!(live.gaps().is_empty());
    }
}
