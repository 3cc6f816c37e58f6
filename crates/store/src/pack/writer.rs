//! Pages on their way into a new pack.

use hashbrown::HashTable;
use watari_types::{NewNode, PAGE_SIZE, Page, PageHash, PageTable, Region};
use zstd::bulk::Compressor;

use super::decoder::add;
use super::format::{self, FRAME_BYTES, Footer, Frame, Index, Kind, PAGES_PER_FRAME, PackId};
use super::reader::Pack;
use crate::compress::compressor;
use crate::error::{At, Error};
use crate::files::NewFile;
use crate::goods::PageFrame;
use crate::lease::Lease;
use crate::regions::Regions;
use crate::store::Store;

/// A page is stored as a change if at most so many of its bytes are others: what is left of a page that changed
/// more is no smaller than the page itself (docs/decisions/0005).
const MOST_CHANGED: usize = PAGE_SIZE / 8;
/// Finding out what a page was before may mean decompressing 64 pages. After so many tries of which not half led to
/// anything, no more are made for this pack,
const FIRST_TRIES: u32 = 64;
/// and in any case after so many.
const MOST_TRIES: u32 = 1024;

/// What a finished pack holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Which it is; none if there was nothing to write. One of the same content may have been there already.
    pub(crate) id: Option<PackId>,
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
    lease: Lease,
    file: NewFile,
    zstd: Compressor<'static>,
    index: Index,
    /// Every page put so far.
    known: HashTable<PageHash>,
    /// The frames that are not full yet: one of each kind for each group.
    open: Vec<OpenFrame>,
    tries: u32,
    successes: u32,
    stored: Vec<u8>,
}

/// A hash for tables: the first bytes of what is a hash already.
fn short_hash(page: &PageHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = page.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What a page lies best together with: pages that are read at the same time, so that no frame is read for a few of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Nodes of trees.
    pub(crate) is_node: bool,
    /// What the newest snapshots hold, which are the ones most often restored.
    pub(crate) is_newest: bool,
}

impl Group {
    const NODES: Group = Group { is_node: true, is_newest: false };
}

/// The pages of a frame that is not written yet.
struct OpenFrame {
    kind: Kind,
    group: Group,
    names: Vec<PageHash>,
    bases: Vec<PageHash>,
    raw: Vec<u8>,
}

impl OpenFrame {
    fn new(kind: Kind, group: Group) -> OpenFrame {
        OpenFrame { kind, group, names: Vec::new(), bases: Vec::new(), raw: Vec::with_capacity(FRAME_BYTES) }
    }
}

impl PackWriter {
    pub(crate) fn create(store: Store, lease: Lease) -> Result<PackWriter, Error> {
        let file = store.layout().new_file()?;
        file.write_at(&format::header(), 0)?;
        let zstd = compressor().at("start compressing for", &store.layout().root)?;
        Ok(PackWriter {
            store,
            lease,
            file,
            zstd,
            index: Index::default(),
            known: HashTable::new(),
            open: Vec::new(),
            tries: 0,
            successes: 0,
            stored: Vec::new(),
        })
    }

    /// Adds a page unless the store or this pack has it already; whether it is new. `hash` must be the page's.
    ///
    /// After an error the page is not in the pack, and everything else is as before.
    pub fn put(&mut self, hash: PageHash, page: &Page) -> Result<bool, Error> {
        if self.has(&hash) {
            return Ok(false);
        }
        self.add(hash, page, None, Group::default())?;
        Ok(true)
    }

    /// Like [`PackWriter::put`], for a page that took the place of the page `former`: it may be stored as a change
    /// of that. Reading it takes longer then, which suits pages that are read many at a time.
    pub fn put_changed(&mut self, hash: PageHash, page: &Page, former: &PageHash) -> Result<bool, Error> {
        if self.has(&hash) {
            return Ok(false);
        }
        match self.change_of(page, former) {
            Some((base, change)) if self.may_change(&hash) => {
                self.add(hash, &change, Some(base), Group::default())?
            }
            _ => self.add(hash, page, None, Group::default())?,
        }
        Ok(true)
    }

    /// Adds the trees of the regions, if enough has changed since they were last written ([`Store::regions`] then has less
    /// to lay over each other). Their nodes lie in frames of their own.
    pub fn put_trees(&mut self, regions: &mut Regions, sizes: &[Region]) -> Result<(), Error> {
        if regions.want_trees() { self.put_trees_now(regions, sizes) } else { Ok(()) }
    }

    /// Adds the trees of the regions.
    pub(crate) fn put_trees_now(&mut self, regions: &mut Regions, sizes: &[Region]) -> Result<(), Error> {
        let nothing = PageTable::new();
        // Of trees whose snapshot is gone, nodes may be gone too.
        let layout = self.store.layout();
        let has_trees = regions.trees_of.map_or(Ok(false), |id| layout.has(&layout.snapshot(id)))?;
        for region in sizes {
            let table = regions.tables.get(&region.name).unwrap_or(&nothing).clone();
            let trees = regions.trees.get(&region.name).filter(|_| has_trees).unwrap_or(&nothing).clone();
            for node in table.new_nodes(&trees, region.pages()) {
                self.put_node(&node)?;
            }
        }
        regions.written();
        Ok(())
    }

    /// Adds a page, or a change, that is in another pack, as it is there.
    pub(crate) fn put_copy(
        &mut self,
        hash: PageHash,
        content: &Page,
        base: Option<PageHash>,
        group: Group,
    ) -> Result<(), Error> {
        if self.is_put(&hash) { Ok(()) } else { self.add(hash, content, base, group) }
    }

    /// Adds a whole frame of another pack, as it is stored there.
    pub(crate) fn put_frame(
        &mut self,
        frame: &Frame,
        names: &[PageHash],
        stored: &[u8],
    ) -> Result<(), Error> {
        let offset = self.index.end_of_frames();
        self.file.write_at(stored, offset)?;
        self.index.frames.push(Frame { offset, first_page: self.index.pages.len() as u32, ..frame.clone() });
        for name in names {
            self.index.pages.push(*name);
            self.known.insert_unique(short_hash(name), *name, short_hash);
        }
        Ok(())
    }

    /// Adds a frame that came from elsewhere and was found to hold what it says.
    pub(crate) fn put_received(&mut self, received: &PageFrame) -> Result<(), Error> {
        let mut stored =
            Vec::with_capacity(received.compressed.len() + received.bases.len() * size_of::<PageHash>());
        received.bases.iter().for_each(|base| stored.extend(base.0));
        stored.extend(&received.compressed);
        let frame = Frame {
            kind: if received.bases.is_empty() { Kind::Pages } else { Kind::Changes },
            offset: 0,
            bytes: stored.len() as u32,
            first_page: 0,
            pages: received.names.len() as u32,
            hash: *blake3::hash(&stored).as_bytes(),
        };
        self.put_frame(&frame, &received.names, &stored)
    }

    /// Whether one of these has been put already.
    pub(crate) fn has_any(&self, pages: &[PageHash]) -> bool {
        pages.iter().any(|page| self.is_put(page))
    }

    /// Its length so far, but for pages that are not compressed yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.index.end_of_frames()
    }

    fn put_node(&mut self, node: &NewNode<'_>) -> Result<(), Error> {
        if self.has(&node.name) {
            return Ok(());
        }
        match node.former.and_then(|former| self.change_from(node.page, &former)) {
            Some((base, change)) if self.may_change(&node.name) => {
                self.add(node.name, &change, Some(base), Group::NODES)
            }
            _ => self.add(node.name, node.page, None, Group::NODES),
        }
    }

    fn is_put(&self, hash: &PageHash) -> bool {
        self.known.find(short_hash(hash), |known| known == hash).is_some()
    }

    fn has(&self, hash: &PageHash) -> bool {
        self.is_put(hash) || self.store.keeps(hash, &self.lease)
    }

    /// Whether the page may be stored as a change. One that is condemned with its bytes would otherwise be found before it.
    fn may_change(&self, hash: &PageHash) -> bool {
        !self.store.contains(hash)
    }

    /// How the page differs from what it was, or from what that is a change of; if it is worth it.
    fn change_of(&mut self, page: &Page, former: &PageHash) -> Option<(PageHash, Page)> {
        let hopeless = self.tries >= FIRST_TRIES && self.successes < self.tries / 2;
        if hopeless || self.tries >= MOST_TRIES || former.is_zero_page() {
            return None;
        }
        self.tries += 1;
        let change = self.change_from(page, former)?;
        self.successes += 1;
        Some(change)
    }

    /// The page as a change of `former`, or of what that is a change of, if it is a small one.
    fn change_from(&self, page: &Page, former: &PageHash) -> Option<(PageHash, Page)> {
        let (base, mut change) = self.store.base_for(former, &self.lease)?;
        add(&mut change, page);
        let changed = change.iter().filter(|byte| **byte != 0).count();
        (changed <= MOST_CHANGED).then_some((base, change))
    }

    fn add(
        &mut self,
        hash: PageHash,
        content: &Page,
        base: Option<PageHash>,
        group: Group,
    ) -> Result<(), Error> {
        let kind = if base.is_some() { Kind::Changes } else { Kind::Pages };
        let at = self.open(kind, group);
        if self.open[at].names.len() == PAGES_PER_FRAME {
            self.write_frame(at)?;
        }
        if u32::try_from(self.known.len()).is_err() {
            return Err(Error::BadDraft("a pack holds at most 16 TiB".to_owned()));
        }
        let open = &mut self.open[at];
        open.names.push(hash);
        open.bases.extend(base);
        open.raw.extend_from_slice(content);
        self.known.insert_unique(short_hash(&hash), hash, short_hash);
        Ok(())
    }

    /// Which of the open frames takes such pages.
    fn open(&mut self, kind: Kind, group: Group) -> usize {
        let found = self.open.iter().position(|open| (open.kind, open.group) == (kind, group));
        found.unwrap_or_else(|| {
            self.open.push(OpenFrame::new(kind, group));
            self.open.len() - 1
        })
    }

    fn write_frame(&mut self, at: usize) -> Result<(), Error> {
        let open = &mut self.open[at];
        let compressed = self.zstd.compress(&open.raw).at("compress pages for", &self.store.layout().root)?;
        self.stored.clear();
        open.bases.iter().for_each(|base| self.stored.extend(base.0));
        self.stored.extend(compressed);
        let offset = self.index.end_of_frames();
        self.file.write_at(&self.stored, offset)?;
        self.index.frames.push(Frame {
            kind: open.kind,
            offset,
            bytes: self.stored.len() as u32,
            first_page: self.index.pages.len() as u32,
            pages: open.names.len() as u32,
            hash: *blake3::hash(&self.stored).as_bytes(),
        });
        self.index.pages.append(&mut open.names);
        open.bases.clear();
        open.raw.clear();
        Ok(())
    }

    /// Makes the pack durable and its pages visible to everyone. A pack without pages writes nothing.
    pub fn finish(mut self) -> Result<PackStats, Error> {
        for at in 0..self.open.len() {
            if !self.open[at].names.is_empty() {
                self.write_frame(at)?;
            }
        }
        if self.index.pages.is_empty() {
            return Ok(PackStats::default());
        }
        let index = self.index.encode();
        let footer = Footer {
            index_offset: self.index.end_of_frames(),
            index_bytes: index.len() as u64,
            id: PackId(*blake3::hash(&index).as_bytes()),
        };
        self.file.write_at(&index, footer.index_offset)?;
        self.file.write_at(&footer.encode(), footer.index_offset + footer.index_bytes)?;
        let stored_bytes = footer.index_offset + footer.index_bytes + format::FOOTER_BYTES;
        // A frame for which there was no room may have come further than that.
        self.file.end_at(stored_bytes)?;
        let path = self.store.layout().pack(footer.id);
        self.file.publish(&path)?;
        let pages = self.index.pages.len() as u64;
        let (pack, names) = Pack::new(self.store.layout(), &path, footer.id, self.index);
        self.store.packs().add(pack, &names);
        Ok(PackStats { id: Some(footer.id), pages, raw_bytes: pages * PAGE_SIZE as u64, stored_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_write_left_is_not_in_the_pack() {
        let folder = tempfile::tempdir().unwrap();
        let page = [7; PAGE_SIZE];
        let name = PageHash::of(&page);
        let store = Store::open(folder.path()).unwrap();
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        pack.put(name, &page).unwrap();
        // The beginning of a frame that the disk had no room for.
        pack.file.write_at(&[1; 100_000], pack.index.end_of_frames()).unwrap();
        let stats = pack.finish().unwrap();
        let path = std::fs::read_dir(folder.path().join("packs")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(path.metadata().unwrap().len(), stats.stored_bytes);
        drop(store);
        let mut read = [0; PAGE_SIZE];
        Store::open(folder.path()).unwrap().read_page(&name, &mut read).unwrap();
        assert!(read == page);
    }
}
