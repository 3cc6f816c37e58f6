//! A region's delta as runs of pages; see docs/FORMAT.md, *Snapshots*.

use std::ops::Range;

use watari_types::{PageHash, RegionDelta};

use super::header::DeltaSize;
use crate::bytes::Parser;
use crate::error::Defect;

/// Bytes of a run's entry.
pub(crate) const RUN_BYTES: u64 = 12;

const ZERO: u32 = 0;
const DATA: u32 = 1;

/// Neighbouring pages that changed in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run<'a> {
    /// `count` pages from `first` on are zero now.
    Zero { first: u32, count: u64 },
    /// The pages from `first` on have the content of these names now.
    Data { first: u32, hashes: &'a [[u8; 32]] },
}

impl Run<'_> {
    /// The pages that changed.
    pub(crate) fn pages(&self) -> Range<u32> {
        let (first, count) = match *self {
            Run::Zero { first, count } => (first, count),
            Run::Data { first, hashes } => (first, hashes.len() as u64),
        };
        first..u32::try_from(u64::from(first) + count).unwrap_or(u32::MAX)
    }
}

/// The runs of a delta, as bytes, and how many there are.
pub(crate) fn encode(delta: &RegionDelta) -> (u64, Vec<u8>) {
    let changes: Vec<(u32, PageHash)> = delta.iter().collect();
    let mut runs = Vec::new();
    let mut hashes = Vec::new();
    let mut count = 0;
    for run in changes.chunk_by(|a, b| a.0 + 1 == b.0 && a.1.is_zero_page() == b.1.is_zero_page()) {
        let (first, hash) = run[0];
        let kind = if hash.is_zero_page() { ZERO } else { DATA };
        for number in [first, run.len() as u32, kind] {
            runs.extend(number.to_le_bytes());
        }
        if kind == DATA {
            hashes.extend(run.iter().flat_map(|(_, hash)| hash.0));
        }
        count += 1;
    }
    runs.append(&mut hashes);
    (count, runs)
}

/// Reads the runs of one delta of a region of `pages` pages. Takes memory for the runs only, however many
/// pages they claim to cover.
pub(crate) fn decode<'a>(bytes: &'a [u8], size: &DeltaSize, pages: u64) -> Result<Vec<Run<'a>>, Defect> {
    let bad = || Defect::new(format!("its delta of {} contradicts itself", size.region));
    let mut parser = Parser(bytes);
    let mut entries = Parser(parser.slice(size.runs.checked_mul(RUN_BYTES).ok_or_else(bad)?)?);
    let (mut hashes, rest) = parser.0.as_chunks::<32>();
    if hashes.len() as u64 != size.data_pages || !rest.is_empty() {
        return Err(bad());
    }
    let mut runs = Vec::new();
    let (mut next, mut zero_pages) = (0, 0);
    for _ in 0..size.runs {
        let (first, count, kind) = (entries.u32()?, entries.u32()?, entries.u32()?);
        let end = u64::from(first) + u64::from(count);
        if u64::from(first) < next || count == 0 || end > pages {
            return Err(bad());
        }
        next = end;
        runs.push(match kind {
            ZERO => {
                zero_pages += u64::from(count);
                Run::Zero { first, count: u64::from(count) }
            }
            DATA => {
                let (these, others) = hashes.split_at_checked(count as usize).ok_or_else(bad)?;
                hashes = others;
                Run::Data { first, hashes: these }
            }
            _ => return Err(bad()),
        });
    }
    match hashes.is_empty() && zero_pages == size.zero_pages {
        true => Ok(runs),
        false => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watari_types::RegionName;

    use super::*;

    const A: [u8; 32] = [0xA; 32];

    fn size(runs: u64, data_pages: u64, zero_pages: u64) -> DeltaSize {
        DeltaSize { region: RegionName::disk(0), runs, data_pages, zero_pages }
    }

    /// Entries of runs, then hashes.
    fn bytes(entries: &[[u32; 3]], hashes: usize) -> Vec<u8> {
        let entries = entries.iter().flatten().flat_map(|number| number.to_le_bytes());
        entries.chain(std::iter::repeat_n(A, hashes).flatten()).collect()
    }

    #[test]
    fn neighbours_of_one_kind_become_one_run() {
        let hash = |page| if page == 3 { PageHash::ZERO_PAGE } else { PageHash(A) };
        let delta = [1, 2, 3, 4, 9].into_iter().map(|page| (page, hash(page))).collect();
        let (runs, encoded) = encode(&delta);
        assert_eq!(runs, 4);
        assert_eq!(encoded, bytes(&[[1, 2, DATA], [3, 1, ZERO], [4, 1, DATA], [9, 1, DATA]], 4));
    }

    #[test]
    fn runs_that_contradict_each_other_or_their_region_are_refused() {
        let good = bytes(&[[1, 2, DATA], [3, 4, ZERO]], 2);
        assert_eq!(decode(&good, &size(2, 2, 4), 7).unwrap().len(), 2);
        let bad: [(&[[u32; 3]], usize, DeltaSize); 9] = [
            (&[[1, 2, DATA], [3, 5, ZERO]], 2, size(2, 2, 5)),
            (&[[1, 2, DATA], [2, 1, ZERO]], 2, size(2, 2, 1)),
            (&[[3, 1, ZERO], [1, 1, ZERO]], 0, size(2, 0, 2)),
            (&[[1, 0, ZERO]], 0, size(1, 0, 0)),
            (&[[1, 1, 2]], 0, size(1, 0, 1)),
            (&[[u32::MAX, u32::MAX, ZERO]], 0, size(1, 0, u64::from(u32::MAX))),
            (&[[1, 2, DATA]], 1, size(1, 1, 0)),
            (&[[1, 1, DATA]], 2, size(1, 2, 0)),
            (&[[1, 1, ZERO]], 0, size(1, 0, 2)),
        ];
        for (entries, hashes, size) in bad {
            assert!(decode(&bytes(entries, hashes), &size, 7).is_err(), "{entries:?}");
        }
        assert!(decode(&good, &size(u64::MAX, 2, 4), 7).is_err());
        assert!(decode(&good, &size(3, 2, 4), 7).is_err());
    }

    #[test]
    fn a_run_of_zeros_takes_no_memory_however_long_it_is() {
        let pages = u64::from(u32::MAX);
        let runs =
            decode(&bytes(&[[0, u32::MAX, ZERO]], 0), &size(1, 0, pages), pages).map(|runs| runs.len());
        assert_eq!(runs.unwrap(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_runs_within_the_region(
            content in prop::collection::vec(any::<u8>(), 0..200),
            runs in 0..20_u64, data_pages in 0..4_u64, zero_pages in 0..1000_u64, pages in 0..1000_u64,
        ) {
            for run in decode(&content, &size(runs, data_pages, zero_pages), pages).unwrap_or_default() {
                let (first, count) = match run {
                    Run::Zero { first, count } => (first, count),
                    Run::Data { first, hashes } => (first, hashes.len() as u64),
                };
                prop_assert!(u64::from(first) + count <= pages);
            }
        }
    }
}
