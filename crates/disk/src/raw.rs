//! The disk's raw file: plain reads and writes at offsets, holes, and syncs.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::Error;
use crate::medium::Medium;

/// An open raw file.
pub(crate) struct RawFile {
    file: File,
    /// Its length and so on were synced as well.
    is_whole: AtomicBool,
}

impl From<File> for RawFile {
    fn from(file: File) -> RawFile {
        RawFile { file, is_whole: AtomicBool::new(false) }
    }
}

impl RawFile {
    /// A new sparse file of `bytes` zeros in place of what is there.
    pub(crate) fn create(path: &Path, bytes: u64) -> Result<RawFile, Error> {
        discard(path).map_err(Error::io("replace", path))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(Error::io("create", path))?;
        file.set_len(bytes).map_err(Error::io("size", path))?;
        Ok(RawFile::from(file))
    }

    /// Opens what is there; returns it with its length.
    pub(crate) fn open(path: &Path) -> Result<(RawFile, u64), Error> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("examine", path))?.len();
        Ok((RawFile::from(file), len))
    }

    /// Makes the file longer; the new bytes are zero.
    pub(crate) fn grow(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, how: FallocateFlags, bytes: Range<u64>) -> io::Result<()> {
        Ok(fallocate(&self.file, how, bytes.start, bytes.end - bytes.start)?)
    }
}

impl Medium for RawFile {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, bytes)
    }

    fn zero_range(&self, bytes: Range<u64>) -> io::Result<()> {
        self.allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_whole.load(Ordering::Acquire) {
            return self.file.sync_data();
        }
        self.file.sync_all()?;
        self.is_whole.store(true, Ordering::Release);
        Ok(())
    }

    fn next_data(&self, bytes: Range<u64>) -> io::Result<Option<Range<u64>>> {
        let start = match seek(&self.file, SeekFrom::Data(bytes.start)) {
            Err(Errno::NXIO) => return Ok(None),
            other => other?,
        };
        if start >= bytes.end {
            return Ok(None);
        }
        let end = seek(&self.file, SeekFrom::Hole(start))?;
        Ok(Some(start..end.min(bytes.end)))
    }
}

/// Removes a file, if there is one. Its space is given back beside what goes on: of a large file that takes long,
/// and nobody needs to wait for it.
fn discard(path: &Path) -> io::Result<()> {
    let old = File::open(path);
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    if let Ok(old) = old {
        // Without a thread it is given back here and now.
        let _ = std::thread::Builder::new().name("disk-discard".into()).spawn(move || drop(old));
    }
    Ok(())
}
