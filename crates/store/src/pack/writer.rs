//! Pages on their way into a new pack.

use hashbrown::HashTable;
use watari_types::{PAGE_SIZE, Page, PageHash};
use zstd::bulk::Compressor;

use super::format::{self, FRAME_BYTES, Footer, Frame, Index, PackId};
use super::reader::Pack;
use crate::compress::compressor;
use crate::error::{At, Error};
use crate::files::NewFile;
use crate::index::short_hash;
use crate::store::Store;

/// What a finished pack holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Pages that were new to the store.
    pub pages: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// The pack's length in bytes; 0 if there was nothing to write.
    pub stored_bytes: u64,
}

/// Writes one pack. Its pages can be read once it is finished, not before. Dropped without
/// [`PackWriter::finish`], it leaves nothing behind.
pub struct PackWriter {
    store: Store,
    file: NewFile,
    zstd: Compressor<'static>,
    index: Index,
    positions: HashTable<u32>,
    /// The pages of the frame that is not full yet.
    raw: Vec<u8>,
    stored: Vec<u8>,
}

impl PackWriter {
    pub(crate) fn create(store: Store) -> Result<PackWriter, Error> {
        let file = NewFile::create(&store.layout().tmp())?;
        file.write_at(&format::header(), 0)?;
        let zstd = compressor().at("start compressing for", &store.layout().root)?;
        Ok(PackWriter {
            store,
            file,
            zstd,
            index: Index::default(),
            positions: HashTable::new(),
            raw: Vec::with_capacity(FRAME_BYTES),
            stored: Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME_BYTES)),
        })
    }

    /// Adds a page unless the store or this pack has it already; whether it is new. `hash` must be the page's.
    ///
    /// After an error the page is not in the pack, and everything else is as before.
    pub fn put(&mut self, hash: PageHash, page: &Page) -> Result<bool, Error> {
        if self.has(&hash) || self.store.contains(&hash) {
            return Ok(false);
        }
        if self.raw.len() == FRAME_BYTES {
            self.write_frame()?;
        }
        let position = u32::try_from(self.index.pages.len())
            .map_err(|_| Error::BadDraft("a pack holds at most 16 TiB".to_owned()))?;
        let pages = &mut self.index.pages;
        pages.push(hash);
        self.positions.insert_unique(short_hash(&hash), position, |at| short_hash(&pages[*at as usize]));
        self.raw.extend_from_slice(page);
        Ok(true)
    }

    fn has(&self, hash: &PageHash) -> bool {
        self.positions.find(short_hash(hash), |at| self.index.pages[*at as usize] == *hash).is_some()
    }

    fn write_frame(&mut self) -> Result<(), Error> {
        self.stored.clear();
        self.zstd
            .compress_to_buffer(&self.raw, &mut self.stored)
            .at("compress pages for", &self.store.layout().root)?;
        let offset = self.index.end_of_frames();
        self.file.write_at(&self.stored, offset)?;
        let pages = (self.raw.len() / PAGE_SIZE) as u32;
        self.index.frames.push(Frame {
            offset,
            bytes: self.stored.len() as u32,
            first_page: self.index.pages.len() as u32 - pages,
            pages,
            hash: *blake3::hash(&self.stored).as_bytes(),
        });
        self.raw.clear();
        Ok(())
    }

    /// Makes the pack durable and its pages visible to everyone. A pack without pages writes nothing.
    pub fn finish(mut self) -> Result<PackStats, Error> {
        if self.index.pages.is_empty() {
            return Ok(PackStats::default());
        }
        if !self.raw.is_empty() {
            self.write_frame()?;
        }
        let index = self.index.encode();
        let footer = Footer {
            index_offset: self.index.end_of_frames(),
            index_bytes: index.len() as u64,
            id: PackId(*blake3::hash(&index).as_bytes()),
        };
        self.file.write_at(&index, footer.index_offset)?;
        self.file.write_at(&footer.encode(), footer.index_offset + footer.index_bytes)?;
        let path = self.store.layout().pack(footer.id);
        self.file.publish(&path)?;
        let pages = self.index.pages.len() as u64;
        self.store.add_pack(Pack::new(&path, footer.id, self.index));
        Ok(PackStats {
            pages,
            raw_bytes: pages * PAGE_SIZE as u64,
            stored_bytes: footer.index_offset + footer.index_bytes + format::FOOTER_BYTES,
        })
    }
}
