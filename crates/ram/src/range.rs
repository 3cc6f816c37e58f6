use std::os::fd::OwnedFd;
use std::sync::Arc;

use watari_types::{PAGE_SIZE, RegionName};

use crate::Error;

/// One tracked range of a process: a RAM block.
#[derive(Clone, Debug)]
pub struct Range {
    /// The region it holds.
    pub name: RegionName,
    /// Its address in the process, a multiple of the page size.
    pub start: u64,
    /// Its length, a multiple of the page size.
    pub bytes: u64,
    /// What its content is, where the process has not written.
    pub backing: Backing,
}

/// What lies behind a range. A file begins at the range's first byte.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Nothing: memory of the process's own.
    Anonymous,
    /// A file mapped shared: QEMU's memfd. Reads then go through the file, because a read through the process
    /// would allocate memory for every hole it meets; and pages that are merely out of the page table are told
    /// from pages that were punched out.
    Shared(Arc<OwnedFd>),
    /// A file mapped privately, on tmpfs. It shows where there is content that the process has not written.
    Private(Arc<OwnedFd>),
}

impl Backing {
    /// The file whose content is the memory's content, whoever wrote it.
    pub(crate) fn shared(&self) -> Option<&Arc<OwnedFd>> {
        match self {
            Backing::Shared(file) => Some(file),
            Backing::Private(_) | Backing::Anonymous => None,
        }
    }
}

impl Range {
    /// A range with no file behind it.
    pub fn new(name: RegionName, start: u64, bytes: u64) -> Self {
        Range { name, start, bytes, backing: Backing::Anonymous }
    }

    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.bytes / PAGE_SIZE as u64).unwrap_or(u32::MAX)
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Whether the promises of the fields hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let page = PAGE_SIZE as u64;
        let whole = self.start.is_multiple_of(page) && self.bytes.is_multiple_of(page);
        let sized = self.bytes > 0 && self.bytes / page <= u64::from(u32::MAX);
        if whole && sized && self.start.checked_add(self.bytes).is_some() {
            return Ok(());
        }
        Err(Error::BadRange { range: self.name.clone(), start: self.start, bytes: self.bytes })
    }
}
