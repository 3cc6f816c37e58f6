//! Single pages out of packs: the frames decoded last are kept, because neighbours are asked for next.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use watari_types::{Page, PageHash};

use crate::error::{At, Error};
use crate::pack::{Decoded, Decoder, PackId};
use crate::packs::Place;

/// At most 16 MiB of decoded frames: pages that change often are changes of the same others again and again.
const CACHED_FRAMES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A frame by its pack and its number in there.
type Key = (PackId, u32);

struct Cached {
    pages: Box<[u8]>,
    bases: Box<[[u8; 32]]>,
}

/// Decoded frames, and the decoders that are not in use.
pub(crate) struct FrameCache {
    frames: Mutex<LruCache<Key, Arc<Cached>>>,
    idle: Mutex<Vec<Decoder>>,
}

impl FrameCache {
    pub(crate) fn new() -> FrameCache {
        FrameCache { frames: Mutex::new(LruCache::new(CACHED_FRAMES)), idle: Mutex::default() }
    }

    /// Copies the page at `place`, or its change: then the name of the page that is to be added.
    pub(crate) fn read(&self, place: &Place, into: &mut Page) -> Result<Option<PageHash>, Error> {
        let key = (place.pack.id, place.frame);
        let cached = self.frames.lock().get(&key).cloned();
        let frame = match cached {
            Some(frame) => frame,
            None => {
                // Not under the lock: other threads go on, at worst one frame is decoded twice.
                let frame = self.decode(place)?;
                self.frames.lock().put(key, Arc::clone(&frame));
                frame
            }
        };
        Ok(Decoded { pages: &frame.pages, bases: &frame.bases }.copy(place.slot, into))
    }

    fn decode(&self, place: &Place) -> Result<Arc<Cached>, Error> {
        let pack = &place.pack;
        let idle = self.idle.lock().pop();
        let mut decoder = match idle {
            Some(decoder) => decoder,
            None => Decoder::new().at("start decompressing", &pack.path)?,
        };
        let frame = decoder
            .decode(pack, place.frame)
            .map(|frame| Arc::new(Cached { pages: frame.pages.into(), bases: frame.bases.into() }));
        decoder.close();
        self.idle.lock().push(decoder);
        frame
    }
}
