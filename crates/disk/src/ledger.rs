//! The ledger beside a disk's raw file: what has to be known of the disk after a loss of power.
//!
//! ```text
//! 0      magic  "WATARLGR"
//! 8      u32    version, 1
//! 12     u32    page size, 4096
//! 16     u64    bytes of the disk
//! 24     u32    pages of a region, a power of two
//! 28     u32    1 if pages may come from a source, else 0
//! 32     zeros up to 512
//! 512    16 bytes: the boot in which the map was made or opened last, zeros if that is not known
//! 528    zeros up to 4096
//! 4096   touched: a bit per region, least significant first, 4096 of them
//! 4608   zeros up to 8192
//! 8192   arrived: a bit per page, the same, padded with zeros to a multiple of 4096 bytes; missing without a source
//! ```
//! All numbers are little-endian.
//!
//! The [map](crate::map) knows everything to the page, costs nothing, and is worth nothing after a loss of power. The
//! ledger says less, and is always true of what the *medium* holds:
//! - A region that is not *touched* has on it what the newest published snapshot has. So touching one for the first time
//!   waits for a sync before anything else happens, and a region stays touched until its content was synced *and*
//!   published, and for some snapshots more, since it will likely be touched again.
//! - A page has *arrived* if the medium has it in the raw file. So a flush syncs the raw file, then notes what had come
//!   before that, then syncs the ledger. Of a page that has not arrived, the content is the source's.
//!
//! Both only say too much or too little in the harmless direction wherever a sector of the ledger is older than another.
//!
//! The ledger is what makes a disk exist: it is named last and removed first. Nothing is synced for a disk that nothing
//! was written to: whoever starts a clone need not wait for the medium, and what is left of such a disk after a loss of
//! power is either empty or refused. Whoever has the disk open holds an exclusive `flock` on it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use watari_types::PAGE_SIZE;

use crate::Error;
use crate::bits::{self, WORD_PAGES};
use crate::mapped::{self, Mapped};
use crate::medium::SyncedWords;
use crate::regions::{Entry, REGIONS, Regions};

const MAGIC: &[u8; 8] = b"WATARLGR";
const VERSION: u32 = 1;
const HEADER: usize = 512;
const BOOT: usize = 512;
const TOUCHED: usize = 4096;
const ARRIVED: usize = 8192;

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// Bytes of the disk.
    pub(crate) bytes: u64,
    /// Pages of a region.
    pub(crate) region_pages: u32,
    /// Whether pages may come from a source.
    pub(crate) has_source: bool,
}

/// An open ledger.
pub(crate) struct Ledger {
    words: Box<dyn SyncedWords>,
    layout: Layout,
    regions: Regions,
}

struct LedgerFile {
    mapped: Mapped,
    file: File,
    raw: PathBuf,
    /// The file's length and its name were synced as well.
    is_whole: AtomicBool,
}

impl LedgerFile {
    fn new(file: File, raw: &Path, layout: &Layout) -> Result<Box<LedgerFile>, Error> {
        let mapped =
            Mapped::new(&file, layout.file_bytes()).map_err(Error::io("map", &Ledger::path_for(raw)))?;
        Ok(Box::new(LedgerFile { mapped, file, raw: raw.to_owned(), is_whole: AtomicBool::new(false) }))
    }
}

impl SyncedWords for LedgerFile {
    fn words(&self) -> &[AtomicU64] {
        self.mapped.words()
    }

    fn sync(&self) -> io::Result<()> {
        // Writes out what was stored through the mapping as well: both are the same pages.
        if self.is_whole.load(Ordering::Acquire) {
            return self.file.sync_data();
        }
        self.file.sync_all()?;
        sync_folder_of(&self.raw)?;
        self.is_whole.store(true, Ordering::Release);
        Ok(())
    }
}

impl Ledger {
    /// Where the ledger of the disk at `raw` is.
    pub(crate) fn path_for(raw: &Path) -> PathBuf {
        raw.with_extension("ledger")
    }

    /// Removes the ledger of the disk at `raw`, if there is one, and with it the disk's validity, durably.
    pub(crate) fn remove(raw: &Path) -> Result<(), Error> {
        let path = Self::path_for(raw);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("open", &path))?,
        };
        lock(&file, raw)?;
        remove_file(raw)
    }

    /// The same with one that is open. It is not locked anew: a child that is being started by another thread holds whatever is
    /// open here until its `exec`, and with it locks that were given back.
    pub(crate) fn remove_open(self, raw: &Path) -> Result<(), Error> {
        remove_file(raw)
    }

    /// Makes the ledger of a new disk, whose raw file and map are there; nothing has arrived. The regions are touched if
    /// `all_touched`; then a sync has to follow before anything relies on that.
    pub(crate) fn create(raw: &Path, layout: Layout, all_touched: bool) -> Result<Ledger, Error> {
        let (path, new) = (Self::path_for(raw), raw.with_extension("ledger.new"));
        let file = mapped::allocate(&new, layout.file_bytes(), &layout.header())?;
        lock(&file, raw)?;
        let touched = if all_touched { [0xff; REGIONS / 8] } else { [0; REGIONS / 8] };
        file.write_all_at(&touched, TOUCHED as u64).map_err(Error::io("write", &new))?;
        fs::rename(&new, &path).map_err(Error::io("name", &path))?;
        Ok(Self::over(LedgerFile::new(file, raw, &layout)?, layout))
    }

    /// Opens the ledger of the disk at `raw`, and believes nothing in it that it can check.
    pub(crate) fn open(raw: &Path) -> Result<Ledger, Error> {
        let path = Self::path_for(raw);
        let damaged = |why: &str| Error::Damaged { path: path.clone(), why: why.to_owned() };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
        lock(&file, raw)?;
        let mut head = [0; HEADER];
        file.read_exact_at(&mut head, 0).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => damaged("the ledger is too short"),
            _ => Error::io("read", &path)(err),
        })?;
        let layout = Layout::parse(&head).map_err(damaged)?;
        let len = file.metadata().map_err(Error::io("examine", &path))?.len();
        if len != layout.file_bytes() as u64 {
            return Err(damaged("the ledger's length does not fit the disk's size"));
        }
        let words = LedgerFile::new(file, raw, &layout)?;
        // A process that was killed may have stored more than it synced.
        words.sync().map_err(Error::io("sync", &path))?;
        let ledger = Self::over(words, layout);
        if !ledger.padding_is_clear() {
            return Err(damaged("the ledger has bits set for pages beyond the end of the disk"));
        }
        Ok(ledger)
    }

    /// The ledger in `words`, which have the layout's header and are synced, or of a disk that is new.
    pub(crate) fn over(words: Box<dyn SyncedWords>, layout: Layout) -> Ledger {
        let regions = Regions::new(&words.words()[TOUCHED / 8..][..REGIONS / 64]);
        Ledger { words, layout, regions }
    }

    /// What the header says.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether the map was made or opened in this boot of the host, so that nothing of it can be lost.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        this_boot().is_some_and(|boot| self.boot() == boot)
    }

    /// Notes that the map is right from now on, until the power is lost. Should the note be lost, so is the map.
    pub(crate) fn note_boot(&self) {
        let boot = this_boot().unwrap_or_default();
        for (word, value) in self.words.words()[BOOT / 8..].iter().zip(boot) {
            word.store(value, Ordering::Release);
        }
    }

    /// Waits until the ledger is on the medium as it is.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.words.sync()
    }

    fn boot(&self) -> [u64; 2] {
        let words = &self.words.words()[BOOT / 8..];
        [words[0].load(Ordering::Acquire), words[1].load(Ordering::Acquire)]
    }

    /// The pages that the raw file holds on the medium; `None` if that is all of them.
    pub(crate) fn arrived(&self) -> Option<&[AtomicU64]> {
        let words = bits::words_for(self.layout.pages());
        self.layout.has_source.then(|| &self.words.words()[ARRIVED / 8..][..words])
    }

    /// The pages of touched regions.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let all = self.layout.regions(0..self.layout.pages());
        self.regions.touched(all).map(|region| self.layout.pages_of(region))
    }

    /// Notes that these pages are on the medium, and waits until the note is.
    pub(crate) fn note_arrived(&self, arrived: &[(u32, u64)]) -> io::Result<()> {
        if arrived.is_empty() {
            return Ok(());
        }
        if let Some(words) = self.arrived() {
            for (word, value) in arrived {
                bits::set(&words[*word as usize], *value);
            }
        }
        self.words.sync()
    }

    /// To be held while `pages` are changed: their regions are touched, durably.
    ///
    /// # Errors
    /// The medium's; the change must not happen then.
    pub(crate) fn enter(&self, pages: Range<u32>) -> io::Result<Entry<'_>> {
        self.regions.enter(self.layout.regions(pages), self.touched_words(), &*self.words)
    }

    /// A snapshot was published. Regions that were left alone since some snapshots are not touched any more, once
    /// `make_durable` has brought everything to the medium. `differs` says whether any of these pages is in no snapshot.
    ///
    /// # Errors
    /// Those of `make_durable`; then all regions stay as they were.
    pub(crate) fn published(
        &self,
        differs: impl Fn(Range<u32>) -> bool,
        make_durable: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let all = self.layout.regions(0..self.layout.pages());
        let differs = |region| differs(self.layout.pages_of(region));
        let cold = self.regions.cold(all, &differs);
        if cold.is_empty() {
            return Ok(());
        }
        make_durable()?;
        self.regions.forget(&cold, self.touched_words(), differs);
        Ok(())
    }

    fn touched_words(&self) -> &[AtomicU64] {
        &self.words.words()[TOUCHED / 8..][..REGIONS / 64]
    }

    fn padding_is_clear(&self) -> bool {
        let pages = self.layout.pages();
        self.arrived().is_none_or(|arrived| {
            let used = pages % WORD_PAGES;
            let beyond = if used == 0 { 0 } else { u64::MAX << used };
            let rest = &self.words.words()[ARRIVED / 8 + arrived.len()..];
            arrived.last().is_none_or(|word| word.load(Ordering::Acquire) & beyond == 0)
                && rest.iter().all(|word| word.load(Ordering::Acquire) == 0)
        })
    }
}

impl Layout {
    /// The layout of a disk: regions of 1 MiB, larger ones where there would be more than 4096 of them.
    pub(crate) fn new(bytes: u64, has_source: bool) -> Layout {
        let pages = (bytes / PAGE_SIZE as u64) as u32;
        let region_pages = pages.div_ceil(REGIONS as u32).next_power_of_two().max(256);
        Layout { bytes, region_pages, has_source }
    }

    pub(crate) fn pages(&self) -> u32 {
        (self.bytes / PAGE_SIZE as u64) as u32
    }

    /// The regions that `pages` lie in.
    fn regions(&self, pages: Range<u32>) -> Range<u32> {
        pages.start / self.region_pages..pages.end.div_ceil(self.region_pages)
    }

    fn pages_of(&self, region: u32) -> Range<u32> {
        let start = region * self.region_pages;
        start..start.saturating_add(self.region_pages).min(self.pages())
    }

    pub(crate) fn file_bytes(&self) -> usize {
        let arrived = bits::words_for(self.pages()) * size_of::<u64>();
        ARRIVED + if self.has_source { arrived.next_multiple_of(4096) } else { 0 }
    }

    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(PAGE_SIZE as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        header[24..28].copy_from_slice(&self.region_pages.to_le_bytes());
        header[28..32].copy_from_slice(&u32::from(self.has_source).to_le_bytes());
        header
    }

    fn parse(head: &[u8; HEADER]) -> Result<Layout, &'static str> {
        if head[..8] != *MAGIC {
            return Err("the ledger has not the magic of one");
        }
        if head[8..12] != VERSION.to_le_bytes() {
            return Err("the ledger's version is not 1");
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let bytes = u64::from(number(16)) | u64::from(number(20)) << 32;
        crate::map::check_size(bytes).map_err(|_| "the ledger's disk has an impossible size")?;
        let layout = Layout { bytes, region_pages: number(24), has_source: number(28) == 1 };
        let is_possible = layout.region_pages.is_power_of_two()
            && layout.pages().div_ceil(layout.region_pages) as usize <= REGIONS
            && layout.header() == *head;
        if is_possible { Ok(layout) } else { Err("the ledger's header is not as it was written") }
    }
}

/// Names this boot of the host.
fn this_boot() -> Option<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
    (number != 0).then_some([(number >> 64) as u64, number as u64])
}

fn remove_file(raw: &Path) -> Result<(), Error> {
    let path = Ledger::path_for(raw);
    fs::remove_file(&path).and_then(|()| sync_folder_of(raw)).map_err(Error::io("remove", &path))
}

/// Makes the names in a disk's folder durable.
fn sync_folder_of(raw: &Path) -> io::Result<()> {
    let folder = raw.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all())
}

fn lock(file: &File, raw: &Path) -> Result<(), Error> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => Error::InUse { path: raw.to_owned() },
        other => Error::io("lock", Ledger::path_for(raw))(other.into()),
    })
}
