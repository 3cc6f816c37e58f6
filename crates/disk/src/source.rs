//! Where pages come from that are not in the disk's file yet.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use watari_types::Generation;

/// What a disk descends from: a snapshot.
pub struct Base {
    /// Its content.
    pub source: Arc<dyn Source>,
    /// Its number in the machine's history.
    pub generation: Generation,
}

/// The content of pages that are not in the disk's file yet: a snapshot in the store, a peer.
///
/// What a source holds does not change: asked twice for a page it gives the same content.
pub trait Source: Send + Sync {
    /// Fills `into`, whole pages, with the content from page `first` on.
    ///
    /// # Errors
    /// The content is not available (now); the request of the guest that needed it fails.
    fn read(&self, first: u32, into: &mut [u8]) -> io::Result<()>;

    /// The runs of pages from `first` on and below `end` that are not zero: ascending, not overlapping,
    /// clipped to the range. All others are zero and will not be read.
    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>>;
}
