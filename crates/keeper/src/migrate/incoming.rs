//! The side to which the guest comes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use watari_disk::{Disk, Zeroes};
use watari_ram::{ProcessMemory, Range};
use watari_types::{PAGE_SIZE, PageSet, RegionKind, RegionName, is_zero};

use super::cut;
use super::frame::{Frame, Wire};
use crate::memory::GuestMemory;
use crate::ram::{self, Ram};
use crate::{Error, Result};

/// Puts what comes over the socket where it belongs, until nothing follows. Returns the state of the devices, which is all that
/// is left to be loaded. What came is in no snapshot here, and on the disks durable.
///
/// # Errors
/// What was to come has not, or not all of it.
pub(crate) fn receive(
    stream: UnixStream,
    ram: &mut Ram,
    memory: &GuestMemory,
    disks: &[Disk],
) -> Result<Vec<u8>> {
    let mut incoming = Incoming::new(ram.places(), memory, disks)?;
    let mut wire = Wire::over(stream).map_err(cut)?;
    wire.send_ready().map_err(cut)?;
    loop {
        match wire.receive().map_err(cut)? {
            Frame::Pages { region, pages, content } => incoming.put(&region, &pages, &content)?,
            Frame::Round => wire.send_taken().map_err(cut)?,
            Frame::Devices(state) => {
                for (range, pages) in incoming.settle()?.iter().enumerate() {
                    ram.distrust(range, pages);
                }
                return Ok(state);
            }
            _ => return Err(nonsense("is out of step")),
        }
    }
}

/// Puts pages where they belong.
pub(super) struct Incoming<'a> {
    /// Which of the ranges is main memory,
    main: usize,
    /// and the file behind it: what is written there is nothing that the guest has written.
    file: File,
    process: ProcessMemory,
    ranges: Vec<Range>,
    disks: &'a [Disk],
    /// The pages that came, range by range.
    changed: Vec<PageSet>,
    /// What was there.
    there: Vec<u8>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(
        (process, ranges): (ProcessMemory, Vec<Range>),
        memory: &GuestMemory,
        disks: &'a [Disk],
    ) -> Result<Incoming<'a>> {
        let file = memory.fd().try_clone_to_owned().map_err(cut)?;
        let main = ram::main_memory(&ranges)?;
        let changed = vec![PageSet::new(); ranges.len()];
        Ok(Incoming { main, file: file.into(), process, ranges, disks, changed, there: Vec::new() })
    }

    pub(super) fn put(&mut self, region: &RegionName, pages: &[u32], content: &[u8]) -> Result<()> {
        let mut content = content;
        for run in pages.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (bytes, rest) = content.split_at(run.len() * PAGE_SIZE);
            content = rest;
            match region.kind() {
                RegionKind::Ram => self.put_ram(region, run[0], bytes)?,
                RegionKind::Disk => self.put_disk(region, run[0], bytes)?,
                RegionKind::Boot => return Err(nonsense("sent what never changes")),
            }
        }
        Ok(())
    }

    fn put_ram(&mut self, region: &RegionName, first: u32, bytes: &[u8]) -> Result<()> {
        let ranges = &self.ranges;
        let range = ranges.iter().position(|range| range.name == *region);
        let range = range.ok_or_else(|| nonsense("has other memory"))?;
        let end = u64::from(first) + (bytes.len() / PAGE_SIZE) as u64;
        if end > u64::from(ranges[range].pages()) {
            return Err(nonsense("has more memory"));
        }
        if range == self.main {
            let written = self.file.write_all_at(bytes, u64::from(first) * PAGE_SIZE as u64);
            written.map_err(|source| Error::Memory { bytes: bytes.len() as u64, source })?;
        } else {
            let address = ranges[range].start + u64::from(first) * PAGE_SIZE as u64;
            // Most of it is video memory, and zero on both sides: left alone, it takes no room, nor the time to make any.
            if !is_zero(bytes) || !self.is_zero_there(address, bytes.len())? {
                self.process.write(address, bytes)?;
            }
        }
        self.changed[range].insert_range(first..end as u32);
        Ok(())
    }

    fn is_zero_there(&mut self, address: u64, bytes: usize) -> Result<bool> {
        self.there.resize(bytes, 0);
        self.process.read(address, &mut self.there)?;
        Ok(is_zero(&self.there))
    }

    fn put_disk(&self, region: &RegionName, first: u32, bytes: &[u8]) -> Result<()> {
        let disk = region.rest().parse().ok().and_then(|index: usize| self.disks.get(index));
        let disk = disk.ok_or_else(|| nonsense("has other disks"))?;
        let offset = u64::from(first) * PAGE_SIZE as u64;
        let written = match is_zero(bytes) {
            true => disk.write_zeroes(offset, bytes.len() as u64, Zeroes::Hole),
            false => disk.write_at(offset, bytes),
        };
        written.map_err(Error::disk("write"))
    }

    /// Nothing follows. Returns the pages that came, range by range.
    pub(super) fn settle(self) -> Result<Vec<PageSet>> {
        // What the guest has flushed is not lost if this host loses its power.
        self.disks.iter().try_for_each(|disk| disk.flush().map_err(Error::disk("flush")))?;
        Ok(self.changed)
    }
}

pub(super) fn nonsense(does: &str) -> Error {
    cut(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("the other side {does}")))
}
