//! A published pack: its index in memory, its frames on disk.

use std::path::{Path, PathBuf};

use watari_types::PageHash;

use super::format::{FOOTER_BYTES, Footer, Frame, HEADER_BYTES, Index, Kind, MIN_BYTES, PackId};
use crate::error::Error;
use crate::files::OpenFile;
use crate::layout::Layout;

/// A pack that can be read from. Holds no open file: a store has thousands of packs, a process a thousand
/// files.
pub(crate) struct Pack {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    /// Whether it is to go away.
    pub(crate) is_condemned: bool,
    layout: Layout,
    index: Index,
}

impl Pack {
    /// Reads the index of the pack at `path` and checks everything but its frames.
    pub(crate) fn open(layout: &Layout, path: &Path, id: PackId, is_condemned: bool) -> Result<Pack, Error> {
        let file = layout.open(path)?;
        let bytes = file.bytes();
        if bytes < MIN_BYTES {
            return Err(Error::damaged(path, format!("it has {bytes} bytes, too few for a pack")));
        }
        let first = file.read_at(path, 0, HEADER_BYTES)?;
        let last = file.read_at(path, bytes - FOOTER_BYTES, FOOTER_BYTES)?;
        let footer = Footer::decode(&first, &last, bytes).map_err(|defect| defect.of(path))?;
        let index = file.read_at(path, footer.index_offset, footer.index_bytes)?;
        if footer.id != id || *blake3::hash(&index).as_bytes() != id.0 {
            return Err(Error::damaged(path, "its index is not the one it is named after"));
        }
        let index = Index::decode(&index, footer.index_offset).map_err(|defect| defect.of(path))?;
        Ok(Pack { is_condemned, ..Pack::new(layout, path, id, index) })
    }

    /// A pack whose index is known already.
    pub(super) fn new(layout: &Layout, path: &Path, id: PackId, index: Index) -> Pack {
        Pack { id, path: path.to_owned(), is_condemned: false, layout: layout.clone(), index }
    }

    /// Opens it to read frames.
    pub(crate) fn file(&self) -> Result<OpenFile, Error> {
        self.layout.open(&self.path)
    }

    /// The hashes of all pages, by position.
    pub(crate) fn pages(&self) -> &[PageHash] {
        &self.index.pages
    }

    /// The frames, in file order.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.index.frames
    }

    /// The hashes of the pages of one frame.
    pub(crate) fn pages_of(&self, frame: &Frame) -> &[PageHash] {
        &self.index.pages[frame.first_page as usize..][..frame.pages as usize]
    }

    /// Whether the page at `position` is stored with its bytes.
    pub(crate) fn is_whole(&self, position: u32) -> bool {
        self.index.frames[self.frame_of(position).0 as usize].kind == Kind::Pages
    }

    /// In which frame the page at `position` is, and as the how manieth.
    pub(crate) fn frame_of(&self, position: u32) -> (u32, u32) {
        let frame = self.index.frames.partition_point(|frame| frame.first_page <= position) - 1;
        (frame as u32, position - self.index.frames[frame].first_page)
    }
}
