//! One half of a transfer between stores that do not see each other: what one has to give.
//!
//! Pages travel in the frames in which they lie. A frame of which everything is wanted goes as it is, its bytes are neither
//! decompressed nor compressed again; of others the pages that are wanted are put into new ones. The other half is
//! [`Intake`](crate::Intake).

use std::collections::BTreeSet;

use watari_types::{NewNode, PAGE_SIZE, Page, PageHash, PageTable, SnapshotId};
use zstd::bulk::Compressor;

use crate::compress::compressor;
use crate::error::{At, Error};
use crate::lease::Lease;
use crate::locate::Wanted;
use crate::pack::{Decoder, PAGES_PER_FRAME};
use crate::regions::Regions;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Up to 64 pages on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageFrame {
    /// Their names.
    pub names: Vec<PageHash>,
    /// Nothing for whole pages; for changes the page that each is a change of.
    pub bases: Vec<PageHash>,
    /// The pages one after the other, or the changes, in Zstandard.
    pub compressed: Vec<u8>,
}

/// What a snapshot is made of that somebody may not have: pages, first those that are there with their bytes, then those that
/// are changes of others. They are numbered in the order in which they lie.
pub struct Goods {
    store: Store,
    _lease: Lease,
    snapshot: Snapshot,
    manifest: Vec<u8>,
    /// Pages that are there whole.
    whole: Vec<Wanted>,
    /// What the regions' trees are made of, if these have to be given, too; numbered after the whole pages.
    trees: Option<Regions>,
    nodes: Vec<PageHash>,
    /// What trees are compared with of which nothing may be left out.
    nothing: PageTable,
    /// Pages that are changes, each with what it is a change of.
    changes: Vec<(Wanted, PageHash)>,
}

impl Store {
    /// A snapshot and those it descends from, the newest first, as far as they are here, but no more than `most`.
    pub fn ancestry(&self, id: SnapshotId, most: usize) -> Result<Vec<SnapshotId>, Error> {
        let mut ids = Vec::new();
        for snapshot in self.line(id).take(most) {
            match snapshot {
                Err(Error::MissingSnapshot { .. }) if !ids.is_empty() => break,
                snapshot => ids.push(snapshot?.id),
            }
        }
        Ok(ids)
    }

    /// What somebody may lack of a snapshot who has that other one it descends from, or none of them.
    pub fn goods(&self, id: SnapshotId, nearest: Option<SnapshotId>) -> Result<Goods, Error> {
        let lease = self.lease()?;
        let manifest = self.manifest(id)?;
        let snapshot = manifest.snapshot();
        let has_parent = snapshot.draft.parent == nearest;
        let trees = match has_parent && !self.has_trees(&snapshot) {
            true => None,
            false => Some(self.regions(id)?),
        };
        let mut names = self.pages_since(&snapshot, nearest)?;
        names.sort_unstable();
        names.dedup();
        let (whole, changed): (Vec<_>, Vec<_>) =
            self.locate((0..).zip(names))?.into_iter().partition(|wanted| wanted.place.is_whole());
        let changes = self.with_bases(changed)?;
        let mut goods = Goods {
            store: self.clone(),
            _lease: lease,
            snapshot,
            manifest: manifest.bytes().to_vec(),
            whole,
            nodes: Vec::new(),
            nothing: PageTable::new(),
            trees,
            changes,
        };
        goods.nodes = goods.tree_nodes().iter().map(|node| node.name).collect();
        Ok(goods)
    }

    /// What each of these changes is a change of. They are sorted as they lie.
    fn with_bases(&self, changes: Vec<Wanted>) -> Result<Vec<(Wanted, PageHash)>, Error> {
        let mut decoder = Decoder::new().at("start decompressing", &self.layout().root)?;
        let mut bases = Vec::with_capacity(changes.len());
        for of_frame in changes.chunk_by(|a, b| a.place.frame_key() == b.place.frame_key()) {
            let place = &of_frame[0].place;
            let names = decoder.bases(&place.pack, place.frame)?;
            bases.extend(of_frame.iter().map(|wanted| PageHash(names[wanted.place.slot as usize])));
        }
        Ok(changes.into_iter().zip(bases).collect())
    }
}

impl Goods {
    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its manifest, as it is.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// How many pages there are with their bytes: the first ones.
    pub fn whole(&self) -> u32 {
        (self.whole.len() + self.nodes.len()) as u32
    }

    /// How many pages there are.
    pub fn len(&self) -> u32 {
        self.whole() + self.changes.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of a page, and what it is a change of here. `None` if there are not so many.
    pub fn page(&self, number: u32) -> Option<(PageHash, Option<PageHash>)> {
        let number = number as usize;
        if let Some(wanted) = self.whole.get(number) {
            return Some((wanted.name, None));
        }
        let number = number - self.whole.len();
        if let Some(node) = self.nodes.get(number) {
            return Some((*node, None));
        }
        let (wanted, base) = self.changes.get(number - self.nodes.len())?;
        Some((wanted.name, Some(*base)))
    }

    fn tree_nodes(&self) -> Vec<NewNode<'_>> {
        let Some(trees) = &self.trees else { return Vec::new() };
        let (mut nodes, mut seen) = (Vec::new(), BTreeSet::new());
        for region in &self.snapshot.draft.regions {
            let table = trees.tables().get(&region.name);
            nodes.extend(table.into_iter().flat_map(|table| table.new_nodes(&self.nothing, region.pages())));
        }
        nodes.retain(|node| seen.insert(node.name));
        nodes
    }

    /// Hands these pages, given by ascending numbers, to `sink` in frames. `as_change` tells of a change whether the other
    /// side has what it is a change of: if not, the whole page is given.
    ///
    /// # Errors
    /// Those of the store, and of `sink`. Some pages have been handed over.
    pub fn frames<E: From<Error>>(
        &self,
        pages: &[u32],
        as_change: &dyn Fn(u32) -> bool,
        sink: &mut dyn FnMut(PageFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut packer = Packer::new(&self.store)?;
        let (first_node, first_change) = (self.whole.len() as u32, self.whole());
        let located: Vec<(&Wanted, bool)> = pages
            .iter()
            .filter_map(|page| match *page {
                page if page < first_node => Some((&self.whole[page as usize], false)),
                page if page < first_change => None,
                page => Some((&self.changes.get((page - first_change) as usize)?.0, as_change(page))),
            })
            .collect();
        let same_frame =
            |a: &(&Wanted, bool), b: &(&Wanted, bool)| a.0.place.frame_key() == b.0.place.frame_key();
        for of_frame in located.chunk_by(same_frame) {
            packer.put_frame(of_frame)?;
            packer.ready.drain(..).try_for_each(&mut *sink)?;
        }
        if pages.iter().any(|page| (first_node..first_change).contains(page)) {
            let nodes = self.tree_nodes();
            for page in pages.iter().filter(|page| (first_node..first_change).contains(*page)) {
                let node = &nodes[(page - first_node) as usize];
                packer.put(node.name, None, node.page)?;
                packer.ready.drain(..).try_for_each(&mut *sink)?;
            }
        }
        packer.end()?;
        packer.ready.drain(..).try_for_each(sink)
    }
}

/// Makes frames of pages.
struct Packer<'a> {
    store: &'a Store,
    decoder: Decoder,
    zstd: Compressor<'static>,
    /// Whole pages, and changes, that do not fill a frame yet.
    open: [(PageFrame, Vec<u8>); 2],
    ready: Vec<PageFrame>,
}

impl<'a> Packer<'a> {
    fn new(store: &'a Store) -> Result<Packer<'a>, Error> {
        let root = &store.layout().root;
        let decoder = Decoder::new().at("start decompressing", root)?;
        let zstd = compressor().at("start compressing", root)?;
        Ok(Packer { store, decoder, zstd, open: Default::default(), ready: Vec::new() })
    }

    /// Adds pages of one frame, each with whether it may go as a change.
    fn put_frame(&mut self, wanted: &[(&Wanted, bool)]) -> Result<(), Error> {
        match self.copy(wanted) {
            // The pack was removed meanwhile because others hold its pages now.
            Err(e) if e.is_gone() => self.copy_singly(wanted),
            copied => copied,
        }
    }

    fn copy(&mut self, wanted: &[(&Wanted, bool)]) -> Result<(), Error> {
        let (pack, number) = (&wanted[0].0.place.pack, wanted[0].0.place.frame);
        let frame = &pack.frames()[number as usize];
        let is_whole = pack.is_whole(number);
        if wanted.len() == frame.pages as usize
            && (is_whole || wanted.iter().all(|(_, as_change)| *as_change))
        {
            let (stored, bases) = self.decoder.check(pack, number)?;
            let (bases, compressed) =
                (bases.iter().map(|base| PageHash(*base)).collect(), &stored[frame.names_bytes()..]);
            let mut names: Vec<_> =
                wanted.iter().map(|(wanted, _)| (wanted.place.slot, wanted.name)).collect();
            names.sort_unstable();
            let names = names.into_iter().map(|(_, name)| name).collect();
            self.ready.push(PageFrame { names, bases, compressed: compressed.to_vec() });
            return Ok(());
        }
        let content = self.decoder.decode_checked(pack, number)?;
        let mut pages = Vec::with_capacity(wanted.len());
        for (wanted, as_change) in wanted {
            let mut page = [0; PAGE_SIZE];
            let base = content.copy(wanted.place.slot, &mut page);
            if let Some(base) = base.filter(|_| !as_change) {
                self.store.complete(&mut page, &base, pack, number)?;
            }
            pages.push((wanted.name, base.filter(|_| *as_change), page));
        }
        pages.iter().try_for_each(|(name, base, page)| self.put(*name, *base, page))
    }

    fn copy_singly(&mut self, wanted: &[(&Wanted, bool)]) -> Result<(), Error> {
        let mut page = [0; PAGE_SIZE];
        for (wanted, _) in wanted {
            self.store.read_page(&wanted.name, &mut page)?;
            self.put(wanted.name, None, &page)?;
        }
        Ok(())
    }

    /// Adds a page, or a change of `base`.
    fn put(&mut self, name: PageHash, base: Option<PageHash>, content: &Page) -> Result<(), Error> {
        let kind = usize::from(base.is_some());
        let (frame, raw) = &mut self.open[kind];
        frame.names.push(name);
        frame.bases.extend(base);
        raw.extend_from_slice(content);
        if frame.names.len() == PAGES_PER_FRAME { self.close(kind) } else { Ok(()) }
    }

    fn close(&mut self, kind: usize) -> Result<(), Error> {
        let (frame, raw) = &mut self.open[kind];
        frame.compressed = self.zstd.compress(raw).at("compress pages of", &self.store.layout().root)?;
        self.ready.push(std::mem::take(frame));
        raw.clear();
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        for kind in 0..self.open.len() {
            if !self.open[kind].0.names.is_empty() {
                self.close(kind)?;
            }
        }
        Ok(())
    }
}
