//! The map beside a disk's raw file: which pages are absent, and which are in no published snapshot.
//!
//! ```text
//! 0      magic  "WATARMAP"
//! 8      u32    version, 1
//! 12     u32    page size, 4096
//! 16     u64    bytes of the disk
//! 24     zeros up to 4096
//! 4096   absent:      a bit per page, least significant first, padded with zeros to a multiple of 4096 bytes
//! …      unpublished: the same
//! ```
//! All numbers are little-endian. The file is mapped shared and changed in place, so its content survives the
//! death of the process (the kernel has it) but not a loss of power: nothing here is synced, and then it is made anew
//! from the [ledger](crate::ledger). Its blocks are allocated when it is made, so that a full file system cannot kill a
//! process that stores into the mapping; a file system that copies on write (btrfs) does not promise as much.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use watari_types::PAGE_SIZE;

use crate::Error;
use crate::bits::{self, WORD_PAGES};
use crate::mapped::{self, Mapped};
use crate::summary::Summary;

const MAGIC: &[u8; 8] = b"WATARMAP";
const VERSION: u32 = 1;
const HEADER: usize = 4096;

/// An open map.
pub(crate) struct Map {
    mapped: Mapped,
    bytes: u64,
    absent_pages: AtomicU64,
    /// Of the unpublished pages.
    summary: Summary,
}

impl Map {
    /// Where the map of the disk at `raw` is.
    pub(crate) fn path_for(raw: &Path) -> PathBuf {
        raw.with_extension("map")
    }

    /// Makes the map of a disk of `bytes` bytes in place of what is there: no page unpublished, and all of them absent
    /// or none. `fill` may change that before the map gets its name.
    pub(crate) fn create(
        raw: &Path,
        bytes: u64,
        all_absent: bool,
        fill: impl FnOnce(&Map) -> Result<(), Error>,
    ) -> Result<Map, Error> {
        let (path, new) = (Self::path_for(raw), raw.with_extension("map.new"));
        let file = mapped::allocate(&new, file_bytes(bytes), &header(bytes))?;
        let map = Self::over(&file, bytes).map_err(Error::io("map", &new))?;
        if all_absent {
            bits::set_range(map.absent(), 0..map.pages());
        }
        fill(&map)?;
        map.count();
        fs::rename(&new, &path).map_err(Error::io("name", &path))?;
        Ok(map)
    }

    /// Opens the map of the disk at `raw`, and believes nothing in it that it can check.
    pub(crate) fn open(raw: &Path) -> Result<Map, Error> {
        let path = Self::path_for(raw);
        let damaged = |why: &str| Error::Damaged { path: path.clone(), why: why.to_owned() };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
        let mut head = [0; HEADER];
        file.read_exact_at(&mut head, 0).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => damaged("the map is too short"),
            _ => Error::io("read", &path)(err),
        })?;
        let bytes = u64::from_le_bytes([
            head[16], head[17], head[18], head[19], head[20], head[21], head[22], head[23],
        ]);
        if head[..8] != *MAGIC {
            return Err(damaged("the map has not the magic of one"));
        }
        if head[8..12] != VERSION.to_le_bytes() {
            return Err(damaged("the map's version is not 1"));
        }
        check_size(bytes).map_err(|_| damaged("the map's disk has an impossible size"))?;
        if head != header(bytes) {
            return Err(damaged("the map's header is not as it was written"));
        }
        let len = file.metadata().map_err(Error::io("examine", &path))?.len();
        if len != file_bytes(bytes) as u64 {
            return Err(damaged("the map's length does not fit the disk's size"));
        }
        let map = Self::over(&file, bytes).map_err(Error::io("map", &path))?;
        if !map.padding_is_clear() {
            return Err(damaged("the map has bits set for pages beyond the end of the disk"));
        }
        map.count();
        Ok(map)
    }

    fn over(file: &File, bytes: u64) -> io::Result<Map> {
        let mapped = Mapped::new(file, file_bytes(bytes))?;
        let summary = Summary::new(bits::words_for((bytes / PAGE_SIZE as u64) as u32));
        Ok(Map { mapped, bytes, absent_pages: AtomicU64::new(0), summary })
    }

    /// Finds out what is kept in memory only.
    fn count(&self) {
        let absent =
            self.absent().iter().map(|word| u64::from(word.load(Ordering::Acquire).count_ones())).sum();
        self.absent_pages.store(absent, Ordering::Release);
        let unpublished = self.unpublished().iter().enumerate();
        unpublished
            .filter(|(_, value)| value.load(Ordering::Acquire) != 0)
            .for_each(|(word, _)| self.summary.set(word));
    }

    /// Bytes of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages of the disk.
    pub(crate) fn pages(&self) -> u32 {
        (self.bytes / PAGE_SIZE as u64) as u32
    }

    /// The pages that are not in the raw file.
    pub(crate) fn absent(&self) -> &[AtomicU64] {
        self.plane(0)
    }

    /// The pages whose content is in no published snapshot.
    pub(crate) fn unpublished(&self) -> &[AtomicU64] {
        self.plane(1)
    }

    /// Marks pages as being in no published snapshot.
    pub(crate) fn mark_unpublished(&self, pages: Range<u32>) {
        for part in bits::parts(pages) {
            let (word, mask) = bits::place(&part);
            bits::set(&self.unpublished()[word], mask);
            self.summary.set(word);
        }
    }

    /// Takes marks of one word away. The gate must be held alone, and who marks must do so (again) with it held shared.
    pub(crate) fn clear_unpublished(&self, word: usize, mask: u64) {
        if self.unpublished()[word].fetch_and(!mask, Ordering::AcqRel) & !mask == 0 {
            self.summary.clear(word);
        }
    }

    /// The words in which pages are unpublished, with their marks.
    pub(crate) fn unpublished_words(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let value = |word: usize| (word, self.unpublished()[word].load(Ordering::Acquire));
        self.summary.words().map(value).filter(|(_, value)| *value != 0)
    }

    /// How many pages are absent.
    pub(crate) fn absent_pages(&self) -> u64 {
        self.absent_pages.load(Ordering::Acquire)
    }

    /// Records that pages of one word, which were absent, are in the raw file now.
    pub(crate) fn set_present(&self, word: usize, mask: u64) {
        let before = self.absent()[word].fetch_and(!mask, Ordering::AcqRel);
        self.absent_pages.fetch_sub(u64::from((before & mask).count_ones()), Ordering::AcqRel);
    }

    fn plane(&self, index: usize) -> &[AtomicU64] {
        let start = (HEADER + index * plane_bytes(self.bytes)) / size_of::<u64>();
        &self.mapped.words()[start..start + bits::words_for(self.pages())]
    }

    fn padding_is_clear(&self) -> bool {
        let used = self.pages() % WORD_PAGES;
        let beyond = if used == 0 { 0 } else { u64::MAX << used };
        let tail_is_clear =
            |plane: &[AtomicU64]| plane.last().is_none_or(|word| word.load(Ordering::Acquire) & beyond == 0);
        let words = bits::words_for(self.pages());
        let stride = plane_bytes(self.bytes) / size_of::<u64>();
        let planes = &self.mapped.words()[HEADER / size_of::<u64>()..];
        tail_is_clear(self.absent())
            && tail_is_clear(self.unpublished())
            && planes
                .chunks(stride)
                .all(|plane| plane[words..].iter().all(|w| w.load(Ordering::Acquire) == 0))
    }
}

/// Refuses what cannot be a disk's size.
pub(crate) fn check_size(bytes: u64) -> Result<(), Error> {
    let pages = bytes / PAGE_SIZE as u64;
    let fits = (1..=u64::from(u32::MAX)).contains(&pages) && bytes.is_multiple_of(PAGE_SIZE as u64);
    if fits { Ok(()) } else { Err(Error::BadSize { bytes }) }
}

fn plane_bytes(disk_bytes: u64) -> usize {
    (disk_bytes.div_ceil(PAGE_SIZE as u64 * u64::from(WORD_PAGES)) as usize * size_of::<u64>())
        .next_multiple_of(HEADER)
}

fn file_bytes(disk_bytes: u64) -> usize {
    HEADER + 2 * plane_bytes(disk_bytes)
}

fn header(bytes: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(PAGE_SIZE as u32).to_le_bytes());
    header[16..24].copy_from_slice(&bytes.to_le_bytes());
    header
}
