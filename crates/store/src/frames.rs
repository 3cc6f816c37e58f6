//! Single pages out of packs: the frames decoded last are kept, because neighbours are asked for next.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use watari_types::{PAGE_SIZE, Page};

use crate::error::{At, Error};
use crate::index::Place;
use crate::pack::{Decoder, PackId};

/// At most 4 MiB of decoded frames.
const CACHED_FRAMES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// A frame by its pack and its number in there.
type Key = (PackId, u32);

/// Decoded frames, and the decoders that are not in use.
pub(crate) struct FrameCache {
    frames: Mutex<LruCache<Key, Arc<[u8]>>>,
    idle: Mutex<Vec<Decoder>>,
}

impl FrameCache {
    pub(crate) fn new() -> FrameCache {
        FrameCache { frames: Mutex::new(LruCache::new(CACHED_FRAMES)), idle: Mutex::default() }
    }

    /// Copies the page at `place`.
    pub(crate) fn read(&self, place: &Place, into: &mut Page) -> Result<(), Error> {
        let key = (place.pack.id, place.frame);
        let cached = self.frames.lock().get(&key).cloned();
        let pages = match cached {
            Some(pages) => pages,
            None => {
                // Not under the lock: other threads go on, at worst one frame is decoded twice.
                let pages = self.decode(place)?;
                self.frames.lock().put(key, Arc::clone(&pages));
                pages
            }
        };
        into.copy_from_slice(&pages[place.slot as usize * PAGE_SIZE..][..PAGE_SIZE]);
        Ok(())
    }

    fn decode(&self, place: &Place) -> Result<Arc<[u8]>, Error> {
        let pack = &place.pack;
        let idle = self.idle.lock().pop();
        let mut decoder = match idle {
            Some(decoder) => decoder,
            None => Decoder::new().at("start decompressing", &pack.path)?,
        };
        let pages = decoder.decode(pack, place.frame).map(Arc::from);
        decoder.close();
        self.idle.lock().push(decoder);
        pages
    }
}
