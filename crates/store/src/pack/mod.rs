//! Packs: many pages in one file, compressed in frames, with an index at the end.

mod decoder;
mod format;
mod reader;
mod writer;

pub(crate) use decoder::Decoder;
pub(crate) use format::PackId;
pub(crate) use reader::Pack;
pub use writer::{PackStats, PackWriter};
