//! The journal (JBD2) of a file system that was in use: whole transactions that may not have reached their blocks yet.
//!
//! ```text
//!   superblock │ … descriptor, block, block, commit │ revocation, descriptor, block, commit │ descriptor, block ✂
//!               └ the first one wanted               └ the next one                          └ no commit: not there
//! ```
//! A *descriptor* says which blocks of the file system the following ones are a later state of; a *revocation* that
//! older states of a block are not to be used, because it serves something else now. As a kernel does when it mounts,
//! this takes the newest state of each block out of all transactions that were committed, but leaves it in the journal
//! and notes where: [`Overlay`]. *Fast commits*, a feature that mke2fs does not set unless told to, are not read.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::{Ext4, Run};
use crate::bytes::{be16, be32};
use crate::error::{Error, Result, damaged};

const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
const HEADER: usize = 12;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOCATION: u32 = 5;

const INCOMPAT_REVOKE: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

const TAG_ESCAPED: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// Blocks that are looked at, and as many states that are kept: mke2fs makes an eighth of that at most.
const MOST_BLOCKS: u64 = 2 << 20;

/// Where the state of a block is that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    /// The block of the file system, within the journal, that holds it.
    pub(super) at: u64,
    /// Whether it begins like a block of the journal, which was replaced by zeros.
    pub(super) is_escaped: bool,
}

/// What the journal holds, by the blocks that it is a state of.
#[derive(Default)]
pub(super) struct Overlay(BTreeMap<u64, Logged>);

impl Overlay {
    pub(super) fn get(&self, block: u64) -> Option<Logged> {
        self.0.get(&block).copied()
    }

    pub(super) fn within(&self, first: u64, end: u64) -> impl Iterator<Item = u64> + '_ {
        self.0.range(first..end.max(first)).map(|(block, _)| *block)
    }
}

/// Puts back what was replaced at the beginning of a block, in bytes that were read from its byte `at` on.
pub(super) fn unescape(at: u64, bytes: &mut [u8]) {
    for (place, byte) in (at..4).zip(bytes) {
        *byte = MAGIC[place as usize];
    }
}

/// What the journal's superblock says.
struct Shape {
    incompat: u32,
    /// The blocks of the log, the first of them, and that of the first transaction. Within the journal.
    end: u32,
    first: u32,
    start: u32,
    /// The number of the first transaction.
    sequence: u32,
}

impl Shape {
    /// `None` if there is nothing to play back.
    fn parse(bytes: &[u8], block_size: u64) -> Result<Option<Shape>> {
        let version = be32(bytes, 4);
        if !bytes.starts_with(&MAGIC) || !matches!(version, SUPERBLOCK_V1 | SUPERBLOCK_V2) {
            return damaged("its journal is none");
        }
        let field = |at| if version == SUPERBLOCK_V2 { be32(bytes, at) } else { 0 };
        let incompat = field(40);
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(Error::Unsupported(format!("a journal with features {incompat:#x}")));
        }
        let fast = match incompat & INCOMPAT_FAST_COMMIT {
            0 => 0,
            _ => [field(84), 256].into_iter().find(|blocks| *blocks > 0).unwrap_or_default(),
        };
        let [block, end, first, sequence, start] = [12, 16, 20, 24, 28].map(|at| be32(bytes, at));
        let end = end.saturating_sub(fast);
        if u64::from(block) != block_size
            || first == 0
            || first >= end
            || (start != 0 && start < first)
            || start >= end
        {
            return damaged("its journal has no shape that there is");
        }
        Ok((start != 0).then_some(Shape { incompat, end, first, start, sequence }))
    }

    fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// What ends a block that lists others.
    fn tail(&self) -> usize {
        if self.has(INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) { 4 } else { 0 }
    }

    /// The place after this one: the log is a ring.
    fn after(&self, place: u32) -> u32 {
        if place + 1 >= self.end { self.first } else { place + 1 }
    }
}

/// A line of a descriptor: what the next block is a state of.
struct Tag {
    block: u64,
    flags: u32,
}

/// The lines of a descriptor.
fn tags(bytes: &[u8], shape: &Shape) -> Vec<Tag> {
    let is_v3 = shape.has(INCOMPAT_CSUM_V3);
    let (high, length) = match (is_v3, shape.has(INCOMPAT_64BIT), shape.has(INCOMPAT_CSUM_V2)) {
        (true, ..) => (true, 16),
        (_, true, with_checksum) => (true, 12 + 2 * usize::from(with_checksum)),
        (_, false, with_checksum) => (false, 8 + 2 * usize::from(with_checksum)),
    };
    let bytes = &bytes[HEADER..bytes.len() - shape.tail()];
    let (mut tags, mut at) = (Vec::new(), 0);
    while at + length <= bytes.len() {
        let tag = &bytes[at..at + length];
        let flags = if is_v3 { be32(tag, 4) } else { be16(tag, 6).into() };
        let high = if high { be32(tag, 8) } else { 0 };
        tags.push(Tag { block: u64::from(high) << 32 | u64::from(be32(tag, 0)), flags });
        if flags & TAG_LAST != 0 {
            break;
        }
        at += length + if flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
    }
    tags
}

/// The blocks that a revocation lists.
fn revoked<'a>(bytes: &'a [u8], shape: &Shape) -> impl Iterator<Item = u64> + use<'a> {
    let width = if shape.has(INCOMPAT_64BIT) { 8 } else { 4 };
    let end = (be32(bytes, HEADER) as usize).min(bytes.len() - shape.tail());
    let list = bytes.get(HEADER + 4..end).unwrap_or_default();
    list.chunks_exact(width).map(|entry| entry.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// What transactions hold, in their order.
#[derive(Default)]
struct Log {
    /// The transaction, the block, and its state then.
    states: Vec<(u32, u64, Logged)>,
    /// The last transaction that wants no state of a block from itself or from before.
    revoked: HashMap<u64, u32>,
}

impl Log {
    fn len(&self) -> u64 {
        (self.states.len() + self.revoked.len()) as u64
    }

    /// Adds a transaction that was committed.
    fn add(&mut self, whole: Log) {
        self.states.extend(whole.states);
        self.revoked.extend(whole.revoked);
    }

    fn overlay(self, sequence: u32) -> Overlay {
        let age = |of: u32| of.wrapping_sub(sequence);
        let is_wanted = |(of, block, _): &(u32, u64, Logged)| {
            self.revoked.get(block).is_none_or(|revoked| age(*revoked) < age(*of))
        };
        let wanted = self.states.iter().filter(|state| is_wanted(state));
        Overlay(wanted.map(|(_, block, logged)| (*block, *logged)).collect())
    }
}

impl Ext4<'_> {
    /// What the journal has to be laid over the file system.
    pub(super) fn play_back(&self) -> Result<Overlay> {
        let blocks = self.journal_blocks()?;
        let place = |place: u32| match blocks.get(place as usize) {
            Some(Some(block)) => Ok(*block),
            _ => damaged("its journal has holes"),
        };
        let Some(shape) = Shape::parse(&self.block(place(0)?)?, self.block_size())? else {
            return Ok(Overlay::default());
        };
        let (mut log, mut open) = (Log::default(), Log::default());
        let (mut at, mut sequence, mut passed) = (shape.start, shape.sequence, 0);
        while passed < u64::from(shape.end) {
            let bytes = self.block(place(at)?)?;
            if !bytes.starts_with(&MAGIC) || be32(&bytes, 8) != sequence {
                break;
            }
            (at, passed) = (shape.after(at), passed + 1);
            match be32(&bytes, 4) {
                DESCRIPTOR => {
                    for tag in tags(&bytes, &shape) {
                        let logged = Logged { at: place(at)?, is_escaped: tag.flags & TAG_ESCAPED != 0 };
                        open.states.push((sequence, tag.block, logged));
                        (at, passed) = (shape.after(at), passed + 1);
                    }
                }
                REVOCATION => open.revoked.extend(revoked(&bytes, &shape).map(|block| (block, sequence))),
                COMMIT => {
                    log.add(std::mem::take(&mut open));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            if log.len() + open.len() > MOST_BLOCKS {
                return Err(Error::TooMuch("its journal is too large"));
            }
        }
        Ok(log.overlay(shape.sequence))
    }

    /// Where each block of the journal is.
    fn journal_blocks(&self) -> Result<Vec<Option<u64>>> {
        if self.superblock.journal == 0 {
            return Err(Error::Unsupported("a journal on another disk".to_owned()));
        }
        let inode = self.inode(self.superblock.journal)?;
        if inode.bytes.div_ceil(self.block_size()) > MOST_BLOCKS {
            return Err(Error::TooMuch("its journal is too large"));
        }
        let mut blocks = Vec::new();
        let _ = self.each_run(&inode, &mut |run| {
            if let Run::Data { logical, first, count } = run {
                blocks.resize(logical as usize, None);
                blocks.extend((first..first + count).map(Some));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(blocks)
    }
}
