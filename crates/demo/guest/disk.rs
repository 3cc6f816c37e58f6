//! The machine's disk, past the guest's page cache.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::page::{PAGE, Page};

const DISK: &str = "/dev/vda";
const O_DIRECT: i32 = 0o40000;

/// A disk made of pages.
pub(crate) struct Disk {
    file: File,
    pages: u64,
}

impl Disk {
    /// The first disk, or nothing if the machine has none.
    pub(crate) fn open() -> Result<Option<Disk>, String> {
        let failed = |error| format!("{DISK}: {error}");
        let file = match OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(DISK) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = (&file).seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Some(Disk { file, pages: bytes / PAGE as u64 }))
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn write(&self, page: u64, content: &Page) -> Result<(), String> {
        let bytes = bytes_of(content);
        self.file
            .write_all_at(bytes, page * PAGE as u64)
            .map_err(|error| format!("{DISK}: writing page {page}: {error}"))
    }

    pub(crate) fn read(&self, page: u64, content: &mut Page) -> Result<(), String> {
        let bytes = bytes_of_mut(content);
        self.file
            .read_exact_at(bytes, page * PAGE as u64)
            .map_err(|error| format!("{DISK}: reading page {page}: {error}"))
    }

    /// Waits until everything written is durable.
    pub(crate) fn flush(&self) -> Result<(), String> {
        self.file.sync_data().map_err(|error| format!("{DISK}: flushing: {error}"))
    }
}

fn bytes_of(page: &Page) -> &[u8] {
    // SAFETY: a page is PAGE initialised bytes without padding, and bytes have no alignment or validity.
    unsafe { std::slice::from_raw_parts(page.0.as_ptr().cast(), PAGE) }
}

fn bytes_of_mut(page: &mut Page) -> &mut [u8] {
    // SAFETY: as above, and every pattern of bits is a valid u64; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(page.0.as_mut_ptr().cast(), PAGE) }
}
