//! Frames back into pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use watari_types::{PAGE_SIZE, PageHash};
use zstd::bulk::Decompressor;

use super::format::FRAME_BYTES;
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

    /// The pages of a frame, one after the other. Relies on the frame's checksum: the pages are not hashed.
    pub(crate) fn decode(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<&[u8], Error> {
        let frame = &pack.frames()[frame as usize];
        let open = match self.open.take().filter(|(opened, _)| Arc::ptr_eq(opened, pack)) {
            Some(open) => open,
            None => (Arc::clone(pack), files::open(&pack.path)?.0),
        };
        let (_, file) = self.open.insert(open);
        let broken =
            |what: String| Error::damaged(&pack.path, format!("the frame at byte {} {what}", frame.offset));
        self.stored.resize(frame.bytes as usize, 0);
        file.read_exact_at(&mut self.stored, frame.offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken("ends early".to_owned()),
            _ => Error::io("read", &pack.path, e),
        })?;
        self.pages.clear();
        let bytes = self
            .zstd
            .decompress_to_buffer(&self.stored, &mut self.pages)
            .map_err(|e| broken(format!("does not decompress: {e}")))?;
        if bytes != frame.pages as usize * PAGE_SIZE {
            return Err(broken(format!("holds {bytes} bytes instead of {} pages", frame.pages)));
        }
        Ok(&self.pages)
    }

    /// Checks that a frame is, bit by bit, what was written, and holds the pages the index says.
    pub(crate) fn check(&mut self, pack: &Arc<Pack>, number: u32) -> Result<(), Error> {
        self.decode(pack, number)?;
        let frame = &pack.frames()[number as usize];
        let (pages, _) = self.pages.as_chunks::<PAGE_SIZE>();
        let wrong = if *blake3::hash(&self.stored).as_bytes() != frame.hash {
            "is not the one that was written"
        } else if !pages.iter().map(PageHash::of).eq(pack.pages_of(frame).iter().copied()) {
            "holds other pages than the index says"
        } else {
            return Ok(());
        };
        Err(Error::damaged(&pack.path, format!("the frame at byte {} {wrong}", frame.offset)))
    }

    /// Lets go of the file, so that it does not occupy the disk once it is removed.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}
