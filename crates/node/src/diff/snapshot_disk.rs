//! A snapshot's disk, as it is read to find files: a page at a time, from the store.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;

use lru::LruCache;
use watari_fs::{Source, Steps};
use watari_store::Store;
use watari_types::{PAGE_SIZE, Page, PageHash, PageTable};

/// Pages that are kept: 32 MiB. Both snapshots' disks share them, and are the same but for a few.
const KEPT_PAGES: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// Pages that are read from the store for one comparison: inodes of 16 million files. A guest decides what is read.
const MOST_PAGES: u64 = 1 << 20;

/// Pages of the store.
pub(super) struct Pages<'a> {
    store: &'a Store,
    kept: RefCell<LruCache<PageHash, Box<Page>>>,
    left: Cell<u64>,
    steps: Steps,
}

impl<'a> Pages<'a> {
    pub(super) fn new(store: &'a Store) -> Pages<'a> {
        Pages {
            store,
            kept: RefCell::new(LruCache::new(KEPT_PAGES)),
            left: Cell::new(MOST_PAGES),
            steps: Steps::default(),
        }
    }

    /// Copies what a page holds from byte `at` on.
    fn copy(&self, name: &PageHash, at: usize, into: &mut [u8]) -> io::Result<()> {
        if name.is_zero_page() {
            into.fill(0);
            return Ok(());
        }
        let mut kept = self.kept.borrow_mut();
        let page = kept.try_get_or_insert(*name, || self.read(name))?;
        into.copy_from_slice(&page[at..at + into.len()]);
        Ok(())
    }

    fn read(&self, name: &PageHash) -> io::Result<Box<Page>> {
        let left =
            self.left.get().checked_sub(1).ok_or_else(|| io::Error::other("too much has to be read"))?;
        self.left.set(left);
        let mut page = Box::new([0; PAGE_SIZE]);
        self.store.read_page(name, &mut page).map_err(io::Error::other)?;
        Ok(page)
    }
}

/// A snapshot's disk.
pub(super) struct SnapshotDisk<'a> {
    pages: &'a Pages<'a>,
    table: PageTable,
    bytes: u64,
}

impl<'a> SnapshotDisk<'a> {
    pub(super) fn new(pages: &'a Pages<'a>, table: PageTable, bytes: u64) -> SnapshotDisk<'a> {
        SnapshotDisk { pages, table, bytes }
    }

    /// The steps that may still be taken on all disks.
    pub(super) fn steps(&self) -> &'a Steps {
        &self.pages.steps
    }
}

impl Source for SnapshotDisk<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut offset, mut rest) = (offset, into);
        while !rest.is_empty() {
            let at = (offset % PAGE_SIZE as u64) as usize;
            let page = u32::try_from(offset / PAGE_SIZE as u64).map_err(io::Error::other)?;
            let (part, after) = rest.split_at_mut(rest.len().min(PAGE_SIZE - at));
            self.pages.copy(&self.table.get(page), at, part)?;
            (offset, rest) = (offset + part.len() as u64, after);
        }
        Ok(())
    }
}
