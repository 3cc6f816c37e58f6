//! A published pack: its frames, which are on disk, and where they are.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use watari_types::PageHash;

use super::format::{
    COUNTS_BYTES, FOOTER_BYTES, Footer, Frame, HEADER_BYTES, HeadHash, Index, IndexHead, Kind, MIN_BYTES,
    PackId, name_offset,
};
use super::outline;
use crate::error::Error;
use crate::files::OpenFile;
use crate::layout::Layout;

/// Names that are read at a time: 256 KiB, which stay in the processor's cache until they are hashed.
const NAMES: usize = 8192;

const WRONG_INDEX: &str = "its index is not the one it is named after";

/// A pack that can be read from. Holds no open file: a store has thousands of packs, a process a thousand
/// files. Nor the names of its pages, which would be most of what a process that has a store open takes.
pub(crate) struct Pack {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    /// Whether it is to go away.
    pub(crate) is_condemned: bool,
    /// How many pages it has.
    pub(crate) pages: u32,
    layout: Layout,
    frames: Vec<Frame>,
    /// The hash of the beginning of its index.
    pub(crate) head: HeadHash,
    /// Whether its index has been found to be the one that it is named after.
    is_checked: AtomicBool,
}

/// The beginning of a pack's index, as it is in the file and as what it says.
struct Head {
    file: OpenFile,
    bytes: Vec<u8>,
    says: IndexHead,
}

impl Head {
    fn read(layout: &Layout, path: &Path, id: PackId) -> Result<Head, Error> {
        let file = outline::open(layout, path, id)?;
        let bytes = file.bytes();
        if bytes < MIN_BYTES {
            return Err(Error::damaged(path, format!("it has {bytes} bytes, too few for a pack")));
        }
        let first = file.read_at(path, 0, HEADER_BYTES)?;
        let last = file.read_at(path, bytes - FOOTER_BYTES, FOOTER_BYTES)?;
        let footer = Footer::decode(&first, &last, bytes).map_err(|defect| defect.of(path))?;
        if footer.id != id {
            return Err(Error::damaged(path, WRONG_INDEX));
        }
        let begins = footer.index_offset;
        let counts = file.read_at(path, begins, COUNTS_BYTES)?;
        let bytes = IndexHead::bytes(&counts, footer.index_bytes).map_err(|defect| defect.of(path))?;
        let bytes = file.read_at(path, begins, bytes)?;
        let says = IndexHead::decode(&bytes, begins).map_err(|defect| defect.of(path))?;
        Ok(Head { file, bytes, says })
    }

    fn hash(&self) -> HeadHash {
        HeadHash::of(&self.bytes)
    }

    fn pack(self, layout: &Layout, path: &Path, id: PackId, is_condemned: bool) -> Pack {
        let (path, layout, head) = (path.to_owned(), layout.clone(), self.hash());
        let (IndexHead { frames, pages }, is_checked) = (self.says, AtomicBool::new(false));
        Pack { id, path, is_condemned, pages, layout, frames, head, is_checked }
    }

    /// Reads the names behind it, which go to `take`, and checks that all of it is the index that `id` names.
    fn check(&self, path: &Path, id: PackId, take: &mut dyn FnMut(&[[u8; 32]])) -> Result<(), Error> {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.bytes);
        let mut names = vec![[0; 32]; NAMES];
        for first in (0..self.says.pages).step_by(NAMES) {
            let names = &mut names[..NAMES.min((self.says.pages - first) as usize)];
            self.file.read_into(path, name_offset(&self.says.frames, first), names.as_flattened_mut())?;
            hash.update(names.as_flattened());
            take(names);
        }
        if *hash.finalize().as_bytes() != id.0 {
            return Err(Error::damaged(path, WRONG_INDEX));
        }
        Ok(())
    }
}

impl Pack {
    /// Opens a pack whose index was checked when its `head` was noted: reads where its frames are, which is a fortieth of
    /// it. That a name has been damaged since is found out when a page is not where it should be ([`Pack::check`]).
    pub(crate) fn open(
        layout: &Layout,
        path: &Path,
        id: PackId,
        is_condemned: bool,
        head: HeadHash,
    ) -> Result<Pack, Error> {
        let read = Head::read(layout, path, id)?;
        if read.hash() == head {
            return Ok(read.pack(layout, path, id, is_condemned));
        }
        // Or what was noted is wrong.
        Pack::open_checked(layout, path, id, is_condemned, &mut |_| ())
    }

    /// Reads the index of the pack at `path` and checks everything but its frames. The pages' names go to `take`, in
    /// their order, a number of them at a time; they are of no use if it fails.
    pub(crate) fn open_checked(
        layout: &Layout,
        path: &Path,
        id: PackId,
        is_condemned: bool,
        take: &mut dyn FnMut(&[[u8; 32]]),
    ) -> Result<Pack, Error> {
        let head = Head::read(layout, path, id)?;
        head.check(path, id, take)?;
        Ok(Pack { is_checked: AtomicBool::new(true), ..head.pack(layout, path, id, is_condemned) })
    }

    /// A pack whose index is known already.
    pub(super) fn new(layout: &Layout, path: &Path, id: PackId, index: Index) -> (Pack, Vec<PageHash>) {
        let (path, layout, pages) = (path.to_owned(), layout.clone(), index.pages.len() as u32);
        let (head, is_checked) = (HeadHash::of(&index.encode_head()), AtomicBool::new(true));
        let frames = index.frames;
        (Pack { id, path, is_condemned: false, pages, layout, frames, head, is_checked }, index.pages)
    }

    /// Opens it to read frames.
    pub(crate) fn file(&self) -> Result<OpenFile, Error> {
        self.layout.open(&self.path)
    }

    /// Opens it to read a part of its index.
    pub(crate) fn index_file(&self) -> Result<OpenFile, Error> {
        outline::open_for_a_part(&self.layout, &self.path, self.id)
    }

    /// Whether reading a little of it takes about as long as reading much.
    pub(crate) fn is_far(&self) -> bool {
        self.layout.is_elsewhere()
    }

    /// The hashes of all pages, by position: read and checked now.
    pub(crate) fn names(&self) -> Result<Vec<PageHash>, Error> {
        let mut all = Vec::with_capacity(self.pages as usize);
        let mut take = |names: &[[u8; 32]]| all.extend(names.iter().copied().map(PageHash));
        self.read_index(&mut take)?;
        Ok(all)
    }

    /// Fails if its index is not the one that it is named after, unless it was once.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_checked.load(Ordering::Relaxed) {
            self.read_index(&mut |_| ())?;
            self.is_checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read_index(&self, take: &mut dyn FnMut(&[[u8; 32]])) -> Result<(), Error> {
        Head::read(&self.layout, &self.path, self.id)?.check(&self.path, self.id, take)
    }

    /// Where in the file the name of the page at `position` is.
    pub(crate) fn name_offset(&self, position: u32) -> u64 {
        name_offset(&self.frames, position)
    }

    /// The frames, in file order.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// In which frame the page at `position` is, and as the how manieth.
    pub(crate) fn frame_of(&self, position: u32) -> (u32, u32) {
        let frame = self.frames.partition_point(|frame| frame.first_page <= position) - 1;
        (frame as u32, position - self.frames[frame].first_page)
    }

    /// Whether the pages of a frame are stored with their bytes.
    pub(crate) fn is_whole(&self, frame: u32) -> bool {
        self.frames[frame as usize].kind == Kind::Pages
    }
}

/// The names of the pages of one frame, of all names of its pack.
pub(crate) fn names_of<'a>(frame: &Frame, names: &'a [PageHash]) -> &'a [PageHash] {
    &names[frame.first_page as usize..][..frame.pages as usize]
}
