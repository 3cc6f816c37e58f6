//! Directories: names and the inodes they stand for.
//!
//! Directories with an index are read like those without one: the blocks of the index look as if they had no entries.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::{Ext4, Inode, Run};
use crate::bytes::{le16, le32};
use crate::error::{Error, Result, damaged};

/// The largest directory that is read, in bytes: some millions of names.
const LARGEST: u64 = 64 << 20;
/// What stands before an entry's name.
const HEADER: usize = 8;

/// The entries of a directory, by name, without `.` and `..`.
pub(crate) struct Listing {
    data: Vec<u8>,
    entries: Vec<Entry>,
}

/// An entry, by where its name begins.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    inode: u32,
}

impl Listing {
    /// The name and the inode of the entry at a place in the order of names.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], u32)> {
        self.entries.get(index).map(|entry| (self.name(*entry), entry.inode))
    }

    /// The memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len() + self.entries.len() * size_of::<Entry>()
    }

    fn name(&self, entry: Entry) -> &[u8] {
        let at = entry.at as usize;
        &self.data[at..at + usize::from(self.data[at - 2])]
    }
}

impl Ext4<'_> {
    /// The entries of a directory.
    pub(crate) fn listing(&self, directory: &Inode) -> Result<Listing> {
        if directory.bytes > LARGEST {
            return Err(Error::TooMuch("a directory has too many entries"));
        }
        let mut data = Vec::new();
        let _ = self.each_run(directory, &mut |run| {
            if let Run::Data { first, count, .. } = run {
                for block in first..first + count {
                    data.extend_from_slice(&self.block(block)?);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut listing = Listing { data, entries: Vec::new() };
        let size = self.block_size() as usize;
        for start in (0..listing.data.len()).step_by(size) {
            self.add_entries(&mut listing, start, start + size, directory.number)?;
        }
        let Listing { data, mut entries } = listing;
        let unsorted = Listing { data, entries: Vec::new() };
        entries.sort_unstable_by(|a, b| unsorted.name(*a).cmp(unsorted.name(*b)));
        entries.dedup_by(|a, b| unsorted.name(*a).cmp(unsorted.name(*b)) == Ordering::Equal);
        Ok(Listing { entries, ..unsorted })
    }

    /// Adds the entries of the block that lies between `start` and `end` of the data.
    fn add_entries(&self, listing: &mut Listing, start: usize, end: usize, directory: u32) -> Result<()> {
        let mut at = start;
        while at < end {
            self.step()?;
            let header = &listing.data[at..end];
            let (inode, stored) = (le32(header, 0), usize::from(le16(header, 4)));
            // 64 KiB do not fit into 16 bits.
            let length = if stored == 0 || stored == 0xFFFF { end - start } else { stored };
            let name_length = match self.superblock.has_file_types {
                true => usize::from(header.get(6).copied().unwrap_or_default()),
                false => usize::from(le16(header, 6)),
            };
            if length < HEADER || length > header.len() || (inode != 0 && name_length + HEADER > length) {
                return damaged(format!("directory {directory} has an entry that does not fit"));
            }
            if inode != 0 {
                let name = &header[HEADER..][..name_length];
                if name.is_empty() || name_length > 255 || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                    return damaged(format!("directory {directory} has a name that is none"));
                }
                if name != b"." && name != b".." {
                    listing.entries.push(Entry { at: (at + HEADER) as u32, inode });
                }
            }
            at += length;
        }
        Ok(())
    }
}
