//! Disks as they are read, and parts of them.

use std::io;

use crate::error::{Result, damaged};

/// A disk that does not change while it is read.
pub trait Source {
    /// Its length in bytes.
    fn bytes(&self) -> u64;

    /// Fills `into` with what lies from byte `offset` on.
    ///
    /// # Errors
    /// When that cannot be read, or reaches beyond the disk's end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl Source for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let found = rest.and_then(|rest| rest.get(..into.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }
}

/// A part of a disk.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    source: &'a dyn Source,
    start: u64,
    bytes: u64,
}

impl<'a> Window<'a> {
    /// All of a disk.
    pub fn all(source: &'a dyn Source) -> Window<'a> {
        Window { source, start: 0, bytes: source.bytes() }
    }

    /// `bytes` of a disk from byte `start` on, as far as they are on it.
    pub fn of(source: &'a dyn Source, start: u64, bytes: u64) -> Window<'a> {
        let bytes = bytes.min(source.bytes().saturating_sub(start));
        Window { source, start, bytes }
    }

    /// Where it begins on the disk, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `into` with what lies from byte `offset` of the window on.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        match offset.checked_add(into.len() as u64) {
            Some(end) if end <= self.bytes => Ok(self.source.read_at(self.start + offset, into)?),
            _ => damaged(format!("it ends at byte {}, and {offset} is asked for", self.bytes)),
        }
    }

    /// Up to `N` bytes from `offset` on; zeros for what is beyond the end.
    pub(crate) fn peek<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let there = usize::try_from(self.bytes.saturating_sub(offset)).map_or(N, |there| there.min(N));
        if there > 0 {
            self.read(offset, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}
