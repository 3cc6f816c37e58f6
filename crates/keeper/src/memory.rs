//! Where a machine's main memory lives: in a file of its own, or copy-on-write over a shared head.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use watari_ram::Backing;
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageHash, PageSet, PageTable};

use crate::{Error, Result};

/// The file that QEMU maps as the guest's memory.
pub(crate) enum GuestMemory {
    /// A memfd of the machine's own, mapped shared: what the guest frees goes back to the host.
    Own(Arc<OwnedFd>),
    /// A head that others may share, mapped privately: what the guest writes is copied first.
    Shared(Arc<OwnedFd>),
}

impl GuestMemory {
    /// Empty memory of `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Result<GuestMemory> {
        let file: File = memfd_create("watari-memory", MemfdFlags::CLOEXEC)
            .map_err(|e| Error::Memory { bytes, source: e.into() })?
            .into();
        file.set_len(bytes).map_err(|source| Error::Memory { bytes, source })?;
        Ok(GuestMemory::Own(Arc::new(file.into())))
    }

    /// Memory of `bytes` bytes that whoever started this process left at its standard input.
    pub(crate) fn from_standard_input(bytes: u64) -> Result<GuestMemory> {
        let failed = |source| Error::Memory { bytes, source };
        let file = File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        let found = file.metadata().map_err(failed)?.len();
        if found != bytes {
            return Err(failed(std::io::Error::other(format!("standard input has {found} bytes"))));
        }
        Ok(GuestMemory::Own(Arc::new(file.into())))
    }

    /// The descriptor for QEMU.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            GuestMemory::Own(fd) | GuestMemory::Shared(fd) => fd.as_fd(),
        }
    }

    /// Whether QEMU must map the file privately.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, GuestMemory::Shared(_))
    }

    /// What lies behind the guest's memory.
    pub(crate) fn backing(&self) -> Backing {
        match self {
            GuestMemory::Own(fd) => Backing::Shared(Arc::clone(fd)),
            GuestMemory::Shared(fd) => Backing::Private(Arc::clone(fd)),
        }
    }

    /// The pages of `table` that are not here.
    pub(crate) fn absent(&self, table: &PageTable) -> Result<PageSet> {
        let mut absent = table.pages();
        absent.subtract(&self.populated(table.last().map_or(0, |last| last.saturating_add(1)))?);
        Ok(absent)
    }

    /// The pages that may not be zero: those that are in the file. Of a private mapping nothing is known.
    pub(crate) fn populated(&self, pages: u32) -> Result<PageSet> {
        let GuestMemory::Own(fd) = self else { return Ok(PageSet::all(pages)) };
        populated(fd.as_fd(), pages)
            .map_err(|source| Error::Memory { bytes: u64::from(pages) * PAGE_SIZE as u64, source })
    }
}

/// Fills guest memory (a head, or a machine's own) with pages out of the store. Zero pages stay holes.
pub(crate) fn fill(
    file: &File,
    path: &Path,
    store: &Store,
    pages: impl Iterator<Item = (u32, PageHash)>,
) -> Result<()> {
    store.read_pages(pages, threads(), &|page, bytes| {
        file.write_all_at(bytes, u64::from(page) * PAGE_SIZE as u64)
    })?;
    tracing::debug!(path = %path.display(), "memory filled");
    Ok(())
}

/// How many threads read memory while nothing else is to be done.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(8)
}

fn populated(fd: BorrowedFd<'_>, pages: u32) -> std::io::Result<PageSet> {
    let page = PAGE_SIZE as u64;
    let mut set = PageSet::new();
    let mut at = 0;
    while at < u64::from(pages) * page {
        let start = match seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = seek(fd, SeekFrom::Hole(start))?;
        set.insert_range((start / page) as u32..end.div_ceil(page) as u32);
        at = end;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_were_written_are_populated() {
        let memory = GuestMemory::new(64 << 20).unwrap();
        let file = File::from(memory.fd().try_clone_to_owned().unwrap());
        for page in [0u64, 7, 8, 16383] {
            file.write_all_at(&[1], page * PAGE_SIZE as u64).unwrap();
        }
        let populated = memory.populated(16384).unwrap();
        assert_eq!(populated.runs().collect::<Vec<_>>(), [0..1, 7..9, 16383..16384]);
    }
}
