//! A region's delta as runs of pages; see docs/FORMAT.md, *Snapshots*.

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
