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
type Piece = Arc<[[u8; 32]]>;

/// The pieces read last, by pack and number.
pub(crate) struct Names(Mutex<LruCache<(PackId, u32), Piece>>);

impl Names {
    pub(crate) fn new() -> Names {
        Names(Mutex::new(LruCache::new(KEPT)))
    }

    /// Whether that is the name of the page at `position`.
    pub(crate) fn is(&self, name: &PageHash, pack: &Pack, position: u32) -> Result<bool, Error> {
        let key = (pack.id, position / per_piece(pack));
        let slot = (position % per_piece(pack)) as usize;
        if let Some(names) = self.0.lock().get(&key) {
            return Ok(names.get(slot) == Some(&name.0));
        }
        // Not under the lock: other threads go on, at worst it is read twice.
        let names = read(pack, position - slot as u32)?;
        let is = names.get(slot) == Some(&name.0);
        self.0.lock().put(key, names);
        Ok(is)
    }
}

fn per_piece(pack: &Pack) -> u32 {
    if pack.is_far() { PER_FAR_PIECE } else { PER_PIECE }
}

/// The names of the pages from `first` on.
fn read(pack: &Pack, first: u32) -> Result<Piece, Error> {
    let count = pack.pages.saturating_sub(first).min(per_piece(pack));
    let mut names = vec![[0; 32]; count as usize];
    pack.index_file()?.read_into(&pack.path, pack.name_offset(first), names.as_flattened_mut())?;
    Ok(names.into())
}
