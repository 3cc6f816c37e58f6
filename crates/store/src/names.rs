//! Names of pages out of packs' indexes: a piece at a time, and the last ones are kept, because neighbours are asked for
//! next.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use watari_types::PageHash;

use crate::error::Error;
use crate::pack::{Pack, PackId};

/// Names that are read at once: 8 KiB, which takes about as long as one of them.
const PER_PIECE: u32 = 256;
/// And so many where asking takes longer than getting: 512 KiB.
const PER_FAR_PIECE: u32 = 16384;
/// So many pieces are kept: 2 MiB, or 128 MiB of those.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The names of pages that follow each other in a pack.
pub(crate) type Piece = Arc<[[u8; 32]]>;

/// The pieces read last, by pack and the first page.
pub(crate) struct Names(Mutex<LruCache<(PackId, u32), Piece>>);

impl Names {
    pub(crate) fn new() -> Names {
        Names(Mutex::new(LruCache::new(KEPT)))
    }

    /// Whether that is the name of the page at `position`.
    pub(crate) fn is(&self, name: &PageHash, pack: &Pack, position: u32) -> Result<bool, Error> {
        let slot = position % per_piece(pack);
        let names = self.piece(pack, position - slot)?;
        Ok(names.get(slot as usize) == Some(&name.0))
    }

    /// The piece that begins with the name of the page `first`.
    pub(crate) fn piece(&self, pack: &Pack, first: u32) -> Result<Piece, Error> {
        if let Some(names) = self.0.lock().get(&(pack.id, first)) {
            return Ok(Arc::clone(names));
        }
        // Not under the lock: other threads go on, at worst it is read twice.
        let names = read(pack, first)?;
        self.0.lock().put((pack.id, first), Arc::clone(&names));
        Ok(names)
    }
}

/// How many names are read at once.
pub(crate) fn per_piece(pack: &Pack) -> u32 {
    if pack.is_far() { PER_FAR_PIECE } else { PER_PIECE }
}

/// The names of the pages from `first` on.
fn read(pack: &Pack, first: u32) -> Result<Piece, Error> {
    let count = pack.pages.saturating_sub(first).min(per_piece(pack));
    let mut names = vec![[0; 32]; count as usize];
    pack.index_file()?.read_into(&pack.path, pack.name_offset(first), names.as_flattened_mut())?;
    Ok(names.into())
}
