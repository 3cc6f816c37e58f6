//! A file's bytes as atomic words shared with the kernel: what is stored in one survives the process.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

#[cfg(target_endian = "big")]
compile_error!("the map's words are little-endian in the file and used in place");

/// A mapped file.
pub(crate) struct Mapped {
    map: MmapRaw,
}

impl Mapped {
    /// Maps `bytes` bytes of `file`, which must be that long and have all its blocks allocated: storing into a
    /// word of a sparse file on a full disk kills the process.
    pub(crate) fn new(file: &File, bytes: usize) -> io::Result<Mapped> {
        Ok(Mapped { map: MmapOptions::new().len(bytes).map_raw(file)? })
    }

    /// The whole mapping as words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping is readable and writable, starts at a page boundary (so words are aligned), is
        // at least `words` words long and lives as long as `self`. Every bit pattern is a valid `AtomicU64`,
        // and nobody in this process gets at the memory in any other way than through these atomics.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), words) }
    }
}
