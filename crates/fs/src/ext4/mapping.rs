//! Where a file's content is: by extents, or by the block maps of ext2 and ext3.

use std::ops::ControlFlow;

use super::{Ext4, Inode};
use crate::bytes::{le16, le32};
use crate::error::{Result, damaged};

const EXTENT_MAGIC: u16 = 0xF30A;
const ENTRY: usize = 12;
/// Linux makes no deeper trees: with blocks of 1 KiB a file of any size fits.
const DEEPEST: u16 = 5;
/// An extent that is longer is not written yet, and reads as zeros.
const LONGEST_WRITTEN: u16 = 32_768;

/// A part of where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Content: `count` blocks from `first` on are those of the file from `logical` on.
    Data {
        /// The first block's number in the file.
        logical: u64,
        /// Its number in the file system.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A block that tells where content is.
    Tree {
        /// Its number in the file system.
        block: u64,
    },
}

/// Whether to go on.
pub(crate) type Flow = Result<ControlFlow<()>>;

/// Takes a step on the way, and returns unless there is to be another.
macro_rules! step {
    ($step:expr) => {
        if $step?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    };
}

/// What is known on the way through a file.
struct Way<'a> {
    /// Blocks of the file: what lies beyond is none of its content.
    blocks: u64,
    /// Content before this one has been seen.
    next: u64,
    visit: &'a mut dyn FnMut(Run) -> Flow,
}

impl Ext4<'_> {
    /// Hands out where the file's content is, in the order of the file, without its holes.
    pub(crate) fn each_run(&self, inode: &Inode, visit: &mut dyn FnMut(Run) -> Flow) -> Flow {
        if !inode.has_blocks() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut way = Way { blocks: inode.bytes.div_ceil(self.block_size()), next: 0, visit };
        if inode.has_extents {
            self.extents(&inode.place, None, &mut way)
        } else {
            self.block_map(&inode.place, &mut way)
        }
    }

    /// A node of a tree, whose depth must be `depth` if that is known.
    fn extents(&self, node: &[u8], depth: Option<u16>, way: &mut Way<'_>) -> Flow {
        let (entries, found) = (usize::from(le16(node, 2)), le16(node, 6));
        let is_deep = depth.map_or(found > DEEPEST, |depth| depth != found);
        if le16(node, 0) != EXTENT_MAGIC || is_deep || entries > node.len() / ENTRY - 1 {
            return damaged("a file's extents are none");
        }
        for entry in node[ENTRY..].as_chunks::<ENTRY>().0.iter().take(entries) {
            self.step()?;
            step!(match found.checked_sub(1) {
                None => self.extent(entry, way),
                Some(below) => {
                    let block = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
                    step!((way.visit)(Run::Tree { block }));
                    self.extents(&self.block(block)?, Some(below), way)
                }
            });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn extent(&self, entry: &[u8; ENTRY], way: &mut Way<'_>) -> Flow {
        let (logical, length) = (u64::from(le32(entry, 0)), le16(entry, 4));
        let first = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
        if logical < way.next {
            return damaged("a file's extents overlap");
        }
        let is_written = length <= LONGEST_WRITTEN;
        let length = u64::from(if is_written { length } else { length - LONGEST_WRITTEN });
        way.next = logical + length;
        let count = length.min(way.blocks.saturating_sub(logical));
        if is_written && count > 0 {
            return (way.visit)(Run::Data { logical, first, count });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block_map(&self, place: &[u8; 60], way: &mut Way<'_>) -> Flow {
        let blocks = place.as_chunks::<4>().0.iter().map(|block| u64::from(u32::from_le_bytes(*block)));
        let per_block = self.block_size() / 4;
        for (index, block) in blocks.enumerate() {
            let (level, span) = match index {
                0..12 => (0, 1),
                12 => (1, per_block),
                13 => (2, per_block.pow(2)),
                _ => (3, per_block.pow(3)),
            };
            step!(self.mapped(block, level, way.next, way));
            way.next += span;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What is under a block of a map, `level` steps above content; `logical` is the first block of the file under it.
    fn mapped(&self, block: u64, level: u32, logical: u64, way: &mut Way<'_>) -> Flow {
        if block == 0 || logical >= way.blocks {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(below) = level.checked_sub(1) else {
            return (way.visit)(Run::Data { logical, first: block, count: 1 });
        };
        step!((way.visit)(Run::Tree { block }));
        let span = (self.block_size() / 4).pow(below);
        let map = self.block(block)?;
        for (index, block) in (0..).zip(map.as_chunks::<4>().0) {
            self.step()?;
            step!(self.mapped(u32::from_le_bytes(*block).into(), below, logical + index * span, way));
        }
        Ok(ControlFlow::Continue(()))
    }
}
