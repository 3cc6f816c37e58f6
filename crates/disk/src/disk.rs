//! A disk's public face.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use watari_types::{PAGE_SIZE, pages_for};

use crate::bits::{self, WORD_PAGES};
use crate::change::Zeroes;
use crate::engine::{Engine, pages_touched};
use crate::ledger::{Layout, Ledger};
use crate::map::{self, Map};
use crate::medium::Medium;
use crate::raw::RawFile;
use crate::{Base, Error, Source};

/// A disk: a sparse raw file, a map of its pages' state beside it, and a source for pages that are not in the
/// file yet. Clones are the same disk.
///
/// The raw file is at the path given; the map has the same path with the extension `map`. A disk can be open
/// once at a time.
#[derive(Clone)]
pub struct Disk {
    engine: Arc<Engine>,
}

impl Disk {
    /// A new disk of `bytes` bytes in place of what is there. With a base every page is absent and comes
    /// from it; without one every page is zero.
    ///
    /// # Errors
    /// [`Error::BadSize`], [`Error::InUse`] (nothing changed), [`Error::Io`] (there may be no disk now).
    pub fn create(path: &Path, bytes: u64, base: Option<Base>) -> Result<Disk, Error> {
        map::check_size(bytes)?;
        Ledger::remove(path)?;
        let raw = RawFile::create(path, bytes)?;
        let map = Map::create(path, bytes, base.is_some(), |_| Ok(()))?;
        Self::make(path, raw, map, base, false)
    }

    /// Takes an existing raw file as a disk, all present; every page that is not a hole is unpublished. A file
    /// that ends within a page is made longer by the rest of it.
    ///
    /// # Errors
    /// As [`create`](Disk::create); the content of the raw file is never changed.
    pub fn adopt_raw(path: &Path) -> Result<Disk, Error> {
        let (raw, len) = RawFile::open(path)?;
        let bytes = pages_for(len) * PAGE_SIZE as u64;
        map::check_size(bytes)?;
        Ledger::remove(path)?;
        if bytes != len {
            raw.grow(bytes).map_err(Error::io("size", path))?;
        }
        let map = Map::create(path, bytes, false, |map| {
            for data in (&raw as &dyn Medium).data(0..bytes) {
                let data = data.map_err(Error::io("look for holes in", path))?;
                map.mark_unpublished(pages_touched(data));
            }
            Ok(())
        })?;
        Self::make(path, raw, map, None, true)
    }

    /// Makes what is there a disk.
    pub(crate) fn make(
        path: &Path,
        raw: RawFile,
        map: Map,
        base: Option<Base>,
        all_touched: bool,
    ) -> Result<Disk, Error> {
        let ledger = Ledger::create(path, Layout::new(map.bytes(), base.is_some()), all_touched)?;
        ledger.note_boot();
        if all_touched {
            // There is content that nobody will flush.
            raw.sync_data().and_then(|()| ledger.sync()).map_err(Error::io("sync", path))?;
        }
        Ok(Disk { engine: Arc::new(Engine::new(Box::new(raw), map, ledger, base)) })
    }

    /// Opens a disk as it was left: by a process that was killed, or by a host that lost its power. Everything
    /// unpublished is pending then.
    ///
    /// The base must be the newest published snapshot, or have the same content and history.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Damaged`] if its files do not belong together, [`Error::Io`]. Nothing is changed.
    pub fn open(path: &Path, base: Option<Base>) -> Result<Disk, Error> {
        let (raw, map, ledger) = Self::open_files(path)?;
        ledger.note_boot();
        Ok(Disk { engine: Arc::new(Engine::new(Box::new(raw), map, ledger, base)) })
    }

    /// What the disk consists of. The map may be a new one, and only the boot in the ledger says which is right.
    pub(crate) fn open_files(path: &Path) -> Result<(RawFile, Map, Ledger), Error> {
        let ledger = Ledger::open(path)?;
        let bytes = ledger.layout().bytes;
        let (raw, len) = RawFile::open(path)?;
        if len != bytes {
            let why = format!("it has {len} bytes, its ledger says {bytes}");
            return Err(Error::Damaged { path: path.to_owned(), why });
        }
        let map = if ledger.is_of_this_boot() { Map::open(path)? } else { map_from(path, &ledger)? };
        if map.bytes() != bytes {
            let why = format!("it is for a disk of {} bytes, and the ledger for one of {bytes}", map.bytes());
            return Err(Error::Damaged { path: Map::path_for(path), why });
        }
        Ok((raw, map, ledger))
    }

    /// The disk's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.engine.map.bytes()
    }

    /// Reads `into.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] beyond the end; else the file's or the source's error.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.engine.admit(offset, into.len() as u64)?;
        self.engine.read(offset, into)
    }

    /// Writes `data` from `offset` on. When it returns, every later read, scan and process sees it; after
    /// [`flush`](Disk::flush) the medium has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] beyond the end, and nothing changed; after any other error the bytes
    /// written to are old or new.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.engine.admit(offset, data.len() as u64)?;
        self.engine.write(offset, data)
    }

    /// Makes `len` bytes from `offset` on zero. Errors as for [`write_at`](Disk::write_at).
    pub fn write_zeroes(&self, offset: u64, len: u64, how: Zeroes) -> io::Result<()> {
        self.engine.admit(offset, len)?;
        self.engine.zero(offset..offset + len, how, false)
    }

    /// Gives the space of `len` bytes from `offset` on back: whole pages read as zeros afterwards, pages only
    /// partly in the range stay as they are. Errors as for [`write_at`](Disk::write_at).
    pub fn trim(&self, offset: u64, len: u64) -> io::Result<()> {
        self.engine.admit(offset, len)?;
        self.engine.trim(offset..offset + len)
    }

    /// Waits until everything acknowledged so far is on the medium (see also
    /// [`defer_flushes`](Disk::defer_flushes)).
    ///
    /// # Errors
    /// Then some of it may not be.
    pub fn flush(&self) -> io::Result<()> {
        self.engine.flush()
    }

    /// Changes where absent pages come from. The new source must have the same content.
    pub fn set_source(&self, source: Option<Arc<dyn Source>>) {
        *self.engine.source.write() = source;
    }

    /// How many pages are still to be brought from the source.
    pub fn absent(&self) -> u64 {
        self.engine.map.absent_pages()
    }

    #[cfg(test)]
    pub(crate) fn over(engine: Engine) -> Disk {
        Disk { engine: Arc::new(engine) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn shared_engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }
}

/// The map of a disk after a loss of power, in place of what is left of the old one.
pub(crate) fn map_from(path: &Path, ledger: &Ledger) -> Result<Map, Error> {
    Map::create(path, ledger.layout().bytes, false, |map| {
        for (word, arrived) in ledger.arrived().unwrap_or_default().iter().enumerate() {
            let here = arrived.load(Ordering::Acquire);
            let start = word as u32 * WORD_PAGES;
            let (_, pages) = bits::place(&(start..map.pages().min(start + WORD_PAGES)));
            bits::set(&map.absent()[word], !here & pages);
        }
        // Of a page that is absent the content is the newest snapshot's, in whatever region it is.
        for pages in ledger.touched() {
            for (absent, run) in bits::runs(map.absent(), pages) {
                if !absent {
                    map.mark_unpublished(run);
                }
            }
        }
        Ok(())
    })
}
