//! What lies on a guest's disk: partitions, and the files of ext2, ext3 and ext4, read and compared without mounting.
//!
//! ```text
//!   a disk ──► partitions ──► volumes, each a window of the disk
//!                               │ content: ext4, or a name for what it is instead
//!                               ▼
//!                             Ext4 ──► compare: two of them, with the pages that differ ──► changes of files
//! ```
//!
//! A disk is anything that can be read at an offset ([`Source`]). Nothing is written, and nothing but what leads to
//! files is read: of the content of a file at most as much as tells whether it differs.
//!
//! Everything on the disk was written by a guest, which may mean harm. So nothing that it says is believed before it is
//! checked, memory is bounded ([`compare`] says by what), and whoever reads for too long is told [`Error::TooMuch`].
//! Checksums are not verified: they keep accidents away, which a snapshot's own hashes do already, and not an attacker.

mod bytes;
mod compare;
mod content;
mod error;
mod ext4;
mod partitions;
mod source;
mod walk;

pub use compare::{Change, FileState, Listener, What, compare};
pub use content::{Content, content};
pub use error::{Error, Result};
pub use ext4::{Ext4, Kind, Steps};
pub use partitions::{Layout, Partition, layout};
pub use source::{Source, Window};
