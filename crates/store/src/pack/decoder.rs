//! Frames back into pages.

use std::fmt;
use std::io;
use std::sync::Arc;

use watari_types::{PAGE_SIZE, Page, PageHash};
use zstd::bulk::Decompressor;

use super::format::{FRAME_BYTES, Frame};
use super::reader::Pack;
use crate::error::Error;
use crate::files::OpenFile;

/// Decompresses one frame after the other, reusing its buffers and the file it has open.
pub(crate) struct Decoder {
    zstd: Decompressor<'static>,
    open: Option<(Arc<Pack>, OpenFile)>,
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
        self.read(pack, frame, pack.frames()[frame as usize].bytes as usize)
    }

    /// Reads the beginning of a frame.
    fn read(&mut self, pack: &Arc<Pack>, frame: u32, bytes: usize) -> Result<(), Error> {
        let frame = &pack.frames()[frame as usize];
        let open = match self.open.take().filter(|(opened, _)| Arc::ptr_eq(opened, pack)) {
            Some(open) => open,
            None => (Arc::clone(pack), pack.file()?),
        };
        let (_, file) = self.open.insert(open);
        self.stored.resize(bytes, 0);
        file.read_exact_at(&mut self.stored, frame.offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken(pack, frame, "ends early"),
            _ => Error::io("read", &pack.path, e),
        })
    }

    /// What the pages of a frame are changes of, one for each; nothing for whole pages. Nothing is checked.
    pub(crate) fn bases(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<&[[u8; 32]], Error> {
        let bytes = pack.frames()[frame as usize].names_bytes();
        self.read(pack, frame, bytes)?;
        Ok(self.stored.as_chunks().0)
    }

    /// What a frame holds. Relies on the frame's checksum: the pages are not hashed.
    pub(crate) fn decode(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<Decoded<'_>, Error> {
        self.fetch(pack, frame)?;
        self.decompress(pack, frame)
    }

    /// What the frame holds that was fetched.
    fn decompress(&mut self, pack: &Pack, frame: u32) -> Result<Decoded<'_>, Error> {
        let frame = &pack.frames()[frame as usize];
        let (names, compressed) = self.stored.split_at(frame.names_bytes());
        self.pages.clear();
        let bytes = self
            .zstd
            .decompress_to_buffer(compressed, &mut self.pages)
            .map_err(|e| broken(pack, frame, format_args!("does not decompress: {e}")))?;
        if bytes != frame.pages as usize * PAGE_SIZE {
            let what = format_args!("holds {bytes} bytes instead of {} pages", frame.pages);
            return Err(broken(pack, frame, what));
        }
        Ok(Decoded { pages: &self.pages, bases: names.as_chunks().0 })
    }

    /// Checks that a frame is, bit by bit, what was written. Its bytes, and the names of the pages it needs besides.
    pub(crate) fn check(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<(&[u8], &[[u8; 32]]), Error> {
        self.fetch(pack, frame)?;
        let frame = &pack.frames()[frame as usize];
        if *blake3::hash(&self.stored).as_bytes() == frame.hash {
            return Ok((&self.stored, self.stored[..frame.names_bytes()].as_chunks().0));
        }
        Err(broken(pack, frame, "is not the one that was written"))
    }

    /// What a frame holds, if it is, bit by bit, what was written.
    pub(crate) fn decode_checked(&mut self, pack: &Arc<Pack>, frame: u32) -> Result<Decoded<'_>, Error> {
        self.check(pack, frame)?;
        self.decompress(pack, frame)
    }

    /// Lets go of the file, so that it does not occupy the disk once it is removed.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}

/// The content of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Decoded<'a> {
    /// The pages, one after the other, or their changes.
    pub(crate) pages: &'a [u8],
    /// What they are changes of, one for each; nothing for whole pages.
    pub(crate) bases: &'a [[u8; 32]],
}

impl Decoded<'_> {
    /// Copies a page, or its change: then the name of the page that is to be added ([`add`]).
    pub(crate) fn copy(&self, slot: u32, into: &mut Page) -> Option<PageHash> {
        into.copy_from_slice(&self.pages[slot as usize * PAGE_SIZE..][..PAGE_SIZE]);
        self.bases.get(slot as usize).map(|base| PageHash(*base))
    }
}

/// Makes a page of a change and what it is a change of, or a change of two pages.
pub(crate) fn add(page: &mut Page, base: &Page) {
    page.iter_mut().zip(base).for_each(|(byte, base)| *byte ^= base);
}

pub(crate) fn broken(pack: &Pack, frame: &Frame, what: impl fmt::Display) -> Error {
    Error::damaged(&pack.path, format!("the frame at byte {} {what}", frame.offset))
}
