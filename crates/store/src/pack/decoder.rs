//! Frames back into pages.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use watari_types::{PAGE_SIZE, PageHash};
use zstd::bulk::Decompressor;

use super::format::{FRAME_BYTES, Frame};
use super::reader::Pack;
use crate::error::Error;
use crate::files;

/// Decompresses one frame after the other, reusing its buffers and the file it has open.
pub(crate) struct Decoder {
    zstd: Decompressor<'static>,
    open: Option<(Arc<Pack>, File)>,
    stored: Vec<u8>,
    pages: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> io::Result<Decoder> {
        Ok(Decoder {
            zstd: Decompressor::new()?,
            open: None,
            stored: Vec::new(),
            pages: Vec::with_capacity(FRAME_BYTES),
        })
    }

    /// Reads a frame as it is stored.
    fn fetch(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<(), Error> {
        let frame = &pack.frames()[frame as usize];
        let open = match self.open.take().filter(|(opened, _)| Arc::ptr_eq(opened, pack)) {
            Some(open) => open,
            None => (Arc::clone(pack), files::open(&pack.path)?.0),
        };
        let (_, file) = self.open.insert(open);
        self.stored.resize(frame.bytes as usize, 0);
        file.read_exact_at(&mut self.stored, frame.offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken(pack, frame, "ends early"),
            _ => Error::io("read", &pack.path, e),
        })
    }

    /// The pages of a frame, one after the other. Relies on the frame's checksum: the pages are not hashed.
    pub(crate) fn decode(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<&[u8], Error> {
        self.fetch(pack, frame)?;
        let frame = &pack.frames()[frame as usize];
        self.pages.clear();
        let bytes = self
            .zstd
            .decompress_to_buffer(&self.stored, &mut self.pages)
            .map_err(|e| broken(pack, frame, format_args!("does not decompress: {e}")))?;
        if bytes != frame.pages as usize * PAGE_SIZE {
            let what = format_args!("holds {bytes} bytes instead of {} pages", frame.pages);
            return Err(broken(pack, frame, what));
        }
        Ok(&self.pages)
    }

    /// Checks that a frame is, bit by bit, what was written.
    pub(crate) fn check_stored(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<(), Error> {
        self.fetch(pack, frame)?;
        let frame = &pack.frames()[frame as usize];
        if *blake3::hash(&self.stored).as_bytes() == frame.hash {
            return Ok(());
        }
        Err(broken(pack, frame, "is not the one that was written"))
    }

    /// Checks that besides a frame holds the pages the index says.
    pub(crate) fn check(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<(), Error> {
        self.check_stored(pack, frame)?;
        self.decode(pack, frame)?;
        let frame = &pack.frames()[frame as usize];
        let (pages, _) = self.pages.as_chunks::<PAGE_SIZE>();
        if pages.iter().map(PageHash::of).eq(pack.pages_of(frame).iter().copied()) {
            return Ok(());
        }
        Err(broken(pack, frame, "holds other pages than the index says"))
    }

    /// Lets go of the file, so that it does not occupy the disk once it is removed.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}

fn broken(pack: &Pack, frame: &Frame, what: impl fmt::Display) -> Error {
    Error::damaged(&pack.path, format!("the frame at byte {} {what}", frame.offset))
}
