//! What is left of a disk that is taken back to another snapshot: every page that is the same in it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use watari_types::PageSet;

use crate::bits::{self, SparseWords};
use crate::ledger::Ledger;
use crate::map::Map;
use crate::raw::RawFile;
use crate::{Base, Disk, Error};

/// The raw file of a disk that was [revoked](Disk::revoke), and which of its pages can be kept.
pub struct Remains {
    raw: RawFile,
    bytes: u64,
    /// The pages that cannot, word by word.
    absent: Vec<u64>,
}

impl Remains {
    /// The disk's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn of(path: &Path, differing: &PageSet) -> Result<(Remains, Ledger), Error> {
        let (raw, map, ledger) = Disk::open_files(path)?;
        let mut absent: Vec<u64> = given_up(&map).collect();
        for part in differing.runs().flat_map(bits::parts).take_while(|part| part.end <= map.pages()) {
            let (word, mask) = bits::place(&part);
            absent[word] |= mask;
        }
        Ok((Remains { raw, bytes: map.bytes(), absent }, ledger))
    }
}

/// The pages that are not as the newest published snapshot has them, or not here, word by word.
fn given_up(map: &Map) -> impl Iterator<Item = u64> + '_ {
    let value = |word: &AtomicU64| word.load(Ordering::Acquire);
    map.absent().iter().zip(map.unpublished()).map(move |(absent, changed)| value(absent) | value(changed))
}

impl Disk {
    /// The pages that would have to come from elsewhere now if the disk were [taken back](Disk::revoke) to the newest
    /// published snapshot: those that are not here, or in no snapshot yet. Takes time in proportion to the disk's size, a
    /// bit for a page.
    pub fn given_up(&self) -> PageSet {
        let words = (0..).zip(given_up(&self.engine().map)).filter(|(_, pages)| *pages != 0);
        bits::page_set(&words.collect::<SparseWords>())
    }

    /// Makes what is at `path` no disk any more, durably: until the next [`create`](Disk::create) or
    /// [`create_from`](Disk::create_from) it cannot be opened. For whoever is about to change what the disk's pages
    /// descend from.
    ///
    /// With `differing`, the pages that may differ between the newest published snapshot and the one wanted, it returns
    /// what can be kept: pages that are here, are in the published one, and do not differ. `None` if that cannot be
    /// told, as when there is no disk or it is damaged.
    ///
    /// # Errors
    /// [`Error::InUse`] (nothing changed), [`Error::Io`] (it may still be a disk).
    pub fn revoke(path: &Path, differing: Option<&PageSet>) -> Result<Option<Remains>, Error> {
        match differing.map(|differing| Remains::of(path, differing)) {
            Some(Ok((remains, ledger))) => {
                ledger.remove_open(path)?;
                return Ok(Some(remains));
            }
            Some(Err(err @ Error::InUse { .. })) => return Err(err),
            Some(Err(err)) => tracing::debug!("nothing of the disk is kept: {err}"),
            None => {}
        }
        Ledger::remove(path)?;
        Ok(None)
    }

    /// A new disk with the content of `base`, of which `remains` are here already, at the path they are from. Nothing
    /// is read and nothing waits for the medium: after a loss of power before the first flush all of it comes from the
    /// base.
    ///
    /// # Errors
    /// [`Error::Io`]; there is no disk then.
    pub fn create_from(path: &Path, remains: Remains, base: Base) -> Result<Disk, Error> {
        let Remains { raw, bytes, absent } = remains;
        let map = Map::create(path, bytes, false, |map| {
            map.absent().iter().zip(absent).for_each(|(word, absent)| bits::set(word, absent));
            Ok(())
        })?;
        Self::make(path, raw, map, Some(base), false)
    }
}
