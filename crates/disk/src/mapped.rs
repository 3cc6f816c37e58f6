//! A file's bytes as atomic words shared with the kernel: what is stored in one survives the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};

use crate::Error;

#[cfg(target_endian = "big")]
compile_error!("the map's words are little-endian in the file and used in place");

/// A mapped file.
pub(crate) struct Mapped {
    map: MmapRaw,
}

/// Makes a file to be mapped in place of what is there: `bytes` bytes, all allocated, zeros behind `header`.
pub(crate) fn allocate(path: &Path, bytes: usize, header: &[u8]) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.map_err(Error::io("create", path))?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)
        .map_err(io::Error::from)
        .and_then(|()| file.write_all_at(header, 0))
        .map_err(Error::io("allocate", path))?;
    Ok(file)
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
