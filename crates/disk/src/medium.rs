//! What a disk keeps its bytes on. Files are one kind; the tests have another, which loses power.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// The disk's content: a run of bytes with holes.
///
/// Of the hardware it is assumed that a sync means what it says, and that a sector of 512 bytes is old or new after a
/// loss of power, never mixed. What was not synced may be there or not, sector by sector, in any order.
pub(crate) trait Medium: Send + Sync {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Gives the space of `bytes` back; they read as zeros. [`io::ErrorKind::Unsupported`] where that cannot be done.
    fn punch(&self, bytes: Range<u64>) -> io::Result<()>;

    /// Makes `bytes` zero and keeps their space. [`io::ErrorKind::Unsupported`] where that cannot be done.
    fn zero_range(&self, bytes: Range<u64>) -> io::Result<()>;

    /// Waits until everything written before the call outlives a loss of power.
    fn sync_data(&self) -> io::Result<()>;

    /// The first run of bytes within `bytes` that are not a hole.
    fn next_data(&self, bytes: Range<u64>) -> io::Result<Option<Range<u64>>>;
}

impl dyn Medium {
    /// All runs of bytes within `bytes` that are not holes.
    pub(crate) fn data(&self, bytes: Range<u64>) -> impl Iterator<Item = io::Result<Range<u64>>> + '_ {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let run = self.next_data(rest.clone()).transpose()?;
            // After an error nothing is left to look at.
            rest.start = run.as_ref().map_or(rest.end, |run| run.end);
            Some(run)
        })
    }
}

/// Words that reach the medium at any time after they are stored, and not later than the next sync.
pub(crate) trait SyncedWords: Send + Sync {
    fn words(&self) -> &[AtomicU64];

    /// Waits until everything stored before the call outlives a loss of power.
    fn sync(&self) -> io::Result<()>;
}
