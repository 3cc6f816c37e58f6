//! The RAM blocks of one running QEMU: where they are, and which of their pages are not in a snapshot yet.

use watari_qemu::{RAM_BLOCK_MAIN, RamBlock};
use watari_ram::{Backing, ProcessMemory, Range, RemoteFd, Tracker, TrackerChoice, TrackerKind};
use watari_types::{PAGE_SIZE, PageSet, Region, RegionKind, RegionName};

use crate::arrival::{Arrival, Arriving};
use crate::memory::GuestMemory;
use crate::{Error, Result};

/// RAM blocks under observation.
pub(crate) struct Ram {
    memory: ProcessMemory,
    ranges: Vec<Range>,
    tracker: Box<dyn Tracker>,
    /// Pages that may differ from the last snapshot, per range; emptied only when a snapshot is published.
    unpublished: Vec<PageSet>,
    /// How far main memory is that is still being filled.
    arriving: Option<Arriving>,
}

impl Ram {
    /// Starts observing. Pages written before count as unwritten until [`Ram::distrust`] says otherwise.
    pub(crate) fn arm(
        pid: u32,
        uffd: Option<RemoteFd>,
        ranges: Vec<Range>,
        choice: TrackerChoice,
    ) -> Result<Ram> {
        let memory = ProcessMemory::open(pid)?;
        let tracker = watari_ram::arm(pid, uffd, ranges.clone(), choice)?;
        let unpublished = vec![PageSet::new(); ranges.len()];
        Ok(Ram { memory, ranges, tracker, unpublished, arriving: None })
    }

    /// Main memory is still being filled, or is no more.
    pub(crate) fn arriving(&mut self, arriving: Option<Arriving>) {
        self.arriving = arriving;
    }

    /// Marks pages of a range as possibly different from the last snapshot.
    pub(crate) fn distrust(&mut self, range: usize, pages: &PageSet) {
        let mut pages = pages.clone();
        self.forget_absent(range, &mut pages);
        self.unpublished[range].union_with(&pages);
    }

    /// How pages are tracked.
    pub(crate) fn tracker(&self) -> TrackerKind {
        self.tracker.kind()
    }

    /// The blocks, in the order of the sets that [`Ram::scan`] returns.
    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Where the blocks are.
    pub(crate) fn places(&self) -> (ProcessMemory, Vec<Range>) {
        (self.memory.clone(), self.ranges.clone())
    }

    /// The blocks as regions of a snapshot.
    pub(crate) fn regions(&self) -> Vec<Region> {
        self.ranges.iter().map(|r| Region { name: r.name.clone(), bytes: r.bytes }).collect()
    }

    /// Everything that is not in a snapshot, as far as known without a scan.
    pub(crate) fn unpublished(&self) -> Vec<PageSet> {
        self.unpublished.clone()
    }

    /// What was written since the last scan. It stays unpublished until [`Ram::published`].
    pub(crate) fn scan(&mut self) -> Result<Vec<PageSet>> {
        let mut written = vec![PageSet::new(); self.ranges.len()];
        // Also what a failing scan found before it failed must stay counted.
        let scanned = self.tracker.scan(&mut written);
        written.iter_mut().enumerate().for_each(|(range, pages)| self.forget_absent(range, pages));
        for (all, new) in self.unpublished.iter_mut().zip(&written) {
            all.union_with(new);
        }
        scanned?;
        Ok(written)
    }

    /// Takes out pages that have not arrived. To the tracker these have nothing that would prove them unwritten, but nobody can
    /// have written to them.
    fn forget_absent(&self, range: usize, pages: &mut PageSet) {
        if let Some(arriving) = self.arriving.as_ref().filter(|_| is_main(&self.ranges[range].name)) {
            let absent: PageSet = pages.iter().filter(|page| arriving.is_absent(*page)).collect();
            pages.subtract(&absent);
        }
    }

    /// Nobody is to wait for any of these pages of a range any more: see [`watari_ram::Faults::release`]. The guest stands
    /// still.
    pub(crate) fn release(
        &mut self,
        range: usize,
        pages: std::ops::Range<u32>,
        arrival: &Arrival,
    ) -> Result<()> {
        self.scan()?;
        let mut lost = PageSet::new();
        lost.insert_range(pages.clone());
        let released = arrival.release(pages);
        let mut written = vec![PageSet::new(); self.ranges.len()];
        let scanned = self.tracker.scan(&mut written);
        if released.is_ok() && scanned.is_ok() {
            written[range].subtract(&lost);
        } else {
            written[range].union_with(&lost);
        }
        self.unpublished.iter_mut().zip(&written).for_each(|(all, new)| all.union_with(new));
        released?;
        Ok(scanned?)
    }

    /// The guest stands still, and what the last scan reported has been read: the tracker may rely on that.
    pub(crate) fn settle(&mut self) {
        self.tracker.settle();
    }

    /// Everything scanned so far is in a published snapshot.
    pub(crate) fn published(&mut self) {
        self.unpublished.iter_mut().for_each(PageSet::clear);
    }

    /// Replaces a page of a block. That the page was written is not seen by the tracker where the kernel tracks.
    pub(crate) fn write(&self, range: usize, page: u32, content: &[u8]) -> Result<()> {
        let address = self.ranges[range].start + u64::from(page) * PAGE_SIZE as u64;
        Ok(self.memory.write(address, content)?)
    }

    /// Copies pages of a block. `into` holds exactly these pages.
    pub(crate) fn read(&self, range: usize, pages: &[u32], into: &mut [u8]) -> Result<()> {
        Ok(self.memory.read_pages(&self.ranges[range], pages, into)?)
    }
}

/// QEMU's RAM blocks as ranges to track. Main memory has a file behind it.
pub(crate) fn ranges(blocks: &[RamBlock], memory: &GuestMemory) -> Result<Vec<Range>> {
    let page = PAGE_SIZE as u64;
    blocks
        .iter()
        .filter(|block| block.used > 0)
        .map(|block| {
            if !block.used.is_multiple_of(page) || !block.host_address.is_multiple_of(page) {
                return Err(Error::OddBlock { block: block.name.clone(), bytes: block.used });
            }
            let is_main = block.name == RAM_BLOCK_MAIN;
            let backing = if is_main { memory.backing() } else { Backing::Anonymous };
            Ok(Range {
                name: RegionName::ram(&block.name)?,
                start: block.host_address,
                bytes: block.used,
                backing,
            })
        })
        .collect()
}

/// The index of main memory among `ranges`.
pub(crate) fn main_memory(ranges: &[Range]) -> Result<usize> {
    ranges
        .iter()
        .position(|range| is_main(&range.name))
        .ok_or_else(|| Error::MissingBlock { block: RAM_BLOCK_MAIN.to_owned() })
}

/// Whether a region is main memory.
pub(crate) fn is_main(region: &RegionName) -> bool {
    region.kind() == RegionKind::Ram && region.rest() == RAM_BLOCK_MAIN
}
