//! An ext2, ext3 or ext4 file system, read-only, as `Documentation/filesystems/ext4` of Linux describes it.
//!
//! A guest that is captured while it runs leaves a journal that was not played back. What it holds is laid over the
//! blocks in memory ([`journal`]), so that one sees what the guest would after a loss of power.

mod directory;
mod inode;
mod journal;
mod mapping;
mod superblock;

use std::cell::{Cell, RefCell};

pub(crate) use directory::Listing;
pub use inode::Kind;
pub(crate) use inode::{Inode, ROOT};
pub(crate) use mapping::Run;

use crate::bytes::{le16, le32};
use crate::error::{Error, Result, damaged};
use crate::source::Window;
use journal::Overlay;
use superblock::{MAGIC, Superblock, has_superblock};

/// How many steps may still be taken, each the reading of a block or of an entry, by all file systems that share it. A
/// guest decides how many there are to take.
pub struct Steps(Cell<u64>);

impl Default for Steps {
    /// Enough for tens of millions of files, and for less than a few minutes.
    fn default() -> Steps {
        Steps(Cell::new(1 << 28))
    }
}

/// A file system.
pub struct Ext4<'a> {
    window: Window<'a>,
    superblock: Superblock,
    overlay: Overlay,
    steps: &'a Steps,
    /// The block of inodes that was read last, and its number.
    inodes: RefCell<Option<(u64, Vec<u8>)>>,
}

impl<'a> Ext4<'a> {
    /// The file system in `window`.
    ///
    /// # Errors
    /// It is none, or has features that are not understood, or its journal makes no sense.
    pub fn open(window: Window<'a>, steps: &'a Steps) -> Result<Ext4<'a>> {
        let superblock = Superblock::parse(&window.peek(1024)?, window.bytes())?;
        let mut found =
            Ext4 { window, superblock, overlay: Overlay::default(), steps, inodes: RefCell::default() };
        if found.superblock.needs_recovery {
            found.overlay = found.play_back()?;
            found.inodes.replace(None);
            let superblock = found.logged_superblock()?;
            found.superblock = superblock;
        }
        Ok(found)
    }

    /// `ext2`, `ext3` or `ext4`.
    pub fn name(&self) -> &'static str {
        self.superblock.name
    }

    /// How many inodes are in use, roughly.
    pub fn used_inodes(&self) -> u64 {
        self.superblock.used_inodes
    }

    /// Whether equal blocks of both mean the same: one is a later or earlier state of the other, at the same place.
    pub(crate) fn is_comparable_with(&self, other: &Ext4<'_>) -> bool {
        self.window.start() == other.window.start() && self.superblock.is_alike(&other.superblock)
    }

    pub(crate) fn block_size(&self) -> u64 {
        self.superblock.block_size
    }

    pub(crate) fn start(&self) -> u64 {
        self.window.start()
    }

    /// The blocks between `first` and `end` that come out of the journal.
    pub(crate) fn logged_within(&self, first: u64, end: u64) -> impl Iterator<Item = u64> + '_ {
        self.overlay.within(first, end)
    }

    /// Counts a step, and fails when there were too many.
    pub(crate) fn step(&self) -> Result<()> {
        let Steps(steps) = self.steps;
        steps.set(steps.get().checked_sub(1).ok_or(Error::TooMuch("it takes too long to read"))?);
        Ok(())
    }

    /// Fills `into` with what block `block` holds from byte `at` on.
    pub(crate) fn read(&self, block: u64, at: u64, into: &mut [u8]) -> Result<()> {
        self.step()?;
        let size = self.superblock.block_size;
        if block >= self.superblock.blocks || at + into.len() as u64 > size {
            return damaged(format!("block {block} is beyond the end"));
        }
        let logged = self.overlay.get(block);
        let stored = logged.map_or(block, |logged| logged.at);
        if stored >= self.superblock.blocks {
            return damaged("its journal is beyond the end");
        }
        self.window.read(stored * size + at, into)?;
        if logged.is_some_and(|logged| logged.is_escaped) {
            journal::unescape(at, into);
        }
        Ok(())
    }

    /// All of a block.
    pub(crate) fn block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.superblock.block_size as usize];
        self.read(block, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// An inode that is in use.
    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        let superblock = &self.superblock;
        if number == 0 || number > superblock.inodes {
            return damaged(format!("there is no inode {number}"));
        }
        let (group, index) =
            ((number - 1) / superblock.inodes_per_group, (number - 1) % superblock.inodes_per_group);
        let at = u64::from(index) * superblock.inode_size;
        let block = self.inode_table(group)?.saturating_add(at / superblock.block_size);
        let mut kept = self.inodes.borrow_mut();
        let bytes = match kept.take() {
            Some((of, bytes)) if of == block => bytes,
            _ => self.block(block)?,
        };
        let from = (at % superblock.block_size) as usize;
        let inode = Inode::parse(number, &bytes[from..from + superblock.inode_size as usize], superblock);
        *kept = Some((block, bytes));
        inode
    }

    /// The first block of a group's inodes.
    fn inode_table(&self, group: u32) -> Result<u64> {
        let superblock = &self.superblock;
        let per_block = superblock.block_size / superblock.descriptor_size;
        let nth = u64::from(group) / per_block;
        let block = match superblock.first_meta_block {
            Some(first) if nth >= first => {
                let of = nth * per_block;
                let start =
                    of.saturating_mul(superblock.blocks_per_group).saturating_add(superblock.first_block);
                start.saturating_add(u64::from(has_superblock(superblock.backups, of)))
            }
            _ => 1024 / superblock.block_size + 1 + nth,
        };
        let mut descriptor = [0; 64];
        let descriptor = &mut descriptor[..superblock.descriptor_size.min(64) as usize];
        let at = u64::from(group) % per_block * superblock.descriptor_size;
        self.read(block, at, descriptor)?;
        let high = if descriptor.len() == 64 { le32(descriptor, 40) } else { 0 };
        Ok(u64::from(high) << 32 | u64::from(le32(descriptor, 8)))
    }

    /// The superblock as the journal leaves it.
    fn logged_superblock(&self) -> Result<Superblock> {
        let mut bytes = [0; 1024];
        let size = self.superblock.block_size;
        self.read(1024 / size, 1024 % size, &mut bytes)?;
        if le16(&bytes, 56) != MAGIC {
            return damaged("the journal has no superblock where one belongs");
        }
        Superblock::parse(&bytes, self.window.bytes())
    }
}
