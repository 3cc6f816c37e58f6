//! Packs: many pages in one file, compressed in frames, with an index at the end. A page is stored with its bytes,
//! or as a change of another one, which is a matter of its frame alone: names and indexes are the same for both.

mod decoder;
mod format;
mod outline;
mod reader;
mod writer;

pub(crate) use decoder::{Decoded, Decoder, add, broken};
pub(crate) use format::{FRAME_BYTES, HeadHash, Kind, MAX_STORED_FRAME, PAGES_PER_FRAME, PackId};
pub(crate) use reader::{Pack, names_of};
pub(crate) use writer::Group;
pub use writer::{PackStats, PackWriter};
