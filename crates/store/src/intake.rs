//! The other half of a transfer between stores that do not see each other: what comes from somebody else is taken in.
//!
//! Nothing is believed. Every page is hashed before it goes into a pack, and the pack before it counts; a manifest is taken
//! once everything is there that it names. Pages that came before a transfer was cut stay, and are not wanted again. The
//! other half is [`Goods`](crate::Goods).

use std::collections::BTreeSet;

use watari_types::{PAGE_SIZE, Page, PageHash, PageTable, SnapshotId};
use zstd::bulk::Decompressor;

use crate::error::{At, Error};
use crate::goods::PageFrame;
use crate::lease::Lease;
use crate::manifest::Manifest;
use crate::pack::{FRAME_BYTES, Group, MAX_STORED_FRAME, PAGES_PER_FRAME, PackWriter, add};
use crate::packs::Place;
use crate::store::Store;
use crate::transfer::{PACK_BYTES, Parcel, Sent};

/// What is being taken in.
pub struct Intake {
    store: Store,
    lease: Lease,
    pack: Option<PackWriter>,
    zstd: Decompressor<'static>,
    raw: Vec<u8>,
    taken: Sent,
}

impl Store {
    /// Begins to take something in. What is here by now stays here meanwhile.
    pub fn intake(&self) -> Result<Intake, Error> {
        let zstd = Decompressor::new().at("start decompressing", &self.layout().root)?;
        let (store, lease, raw) = (self.clone(), self.lease()?, Vec::with_capacity(FRAME_BYTES));
        Ok(Intake { store, lease, pack: None, zstd, raw, taken: Sent::default() })
    }
}

impl Intake {
    /// Which is the first of these snapshots that is here.
    ///
    /// # Errors
    /// [`Error::GenerationTaken`] if the machine has another snapshot of that generation.
    pub fn nearest(&self, parcel: &Parcel<'_>, line: &[SnapshotId]) -> Result<Option<usize>, Error> {
        self.check_generation(parcel)?;
        for (index, id) in line.iter().enumerate() {
            if self.store.has_snapshot(*id, &self.lease)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn check_generation(&self, parcel: &Parcel<'_>) -> Result<bool, Error> {
        let Parcel { machine, generation, id, .. } = *parcel;
        match self.store.refs(machine).get(generation)? {
            Some(existing) if existing != id => Err(Error::GenerationTaken { machine, generation, existing }),
            existing => Ok(existing.is_some()),
        }
    }

    /// Whether a page is not here, or not to stay.
    pub fn lacks(&self, page: &PageHash) -> bool {
        !self.store.keeps(page, &self.lease)
    }

    /// Takes the pages of a frame.
    ///
    /// # Errors
    /// [`Error::Forged`] if it does not hold what it says: nothing of it was taken.
    pub fn take(&mut self, frame: &PageFrame) -> Result<(), Error> {
        self.unpack(frame)?;
        let is_change = !frame.bases.is_empty();
        // As it came, it can stay only if what it holds changes of is here whole, and none of its pages is.
        let fits = frame.bases.iter().all(|base| self.is_whole(base))
            && frame.names.iter().all(|name| !(is_change && self.store.contains(name)));
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(self.store.new_pack(&self.lease)?),
        };
        if fits && !pack.has_any(&frame.names) {
            pack.put_received(frame)?;
        } else {
            for (name, page) in frame.names.iter().zip(self.raw.as_chunks::<PAGE_SIZE>().0) {
                pack.put_copy(*name, page, None, Group::default())?;
            }
        }
        self.taken.pages += frame.names.len() as u64;
        if pack.bytes() >= PACK_BYTES { self.settle() } else { Ok(()) }
    }

    fn is_whole(&self, page: &PageHash) -> bool {
        self.store.find(page).is_some_and(|place: Place| place.is_whole() && self.lease.covers(&place))
    }

    /// Has the pages of a frame in `raw`, if they are what they are called.
    fn unpack(&mut self, frame: &PageFrame) -> Result<(), Error> {
        let forged = |what: &str| Err(Error::Forged(what.to_owned()));
        let PageFrame { names, bases, compressed } = frame;
        let distinct: BTreeSet<&PageHash> = names.iter().collect();
        if names.is_empty() || names.len() > PAGES_PER_FRAME || distinct.len() < names.len() {
            return forged("a frame of pages has none, too many, or one twice");
        }
        if !bases.is_empty() && bases.len() != names.len() || compressed.len() > MAX_STORED_FRAME as usize {
            return forged("a frame of pages contradicts itself");
        }
        self.raw.clear();
        // Into memory that is there: no more comes of it than fits.
        let bytes = self.zstd.decompress_to_buffer(compressed, &mut self.raw);
        if !bytes.is_ok_and(|bytes| bytes == names.len() * PAGE_SIZE) {
            return forged("a frame of pages does not decompress to as many as it has names");
        }
        let mut base_page = [0; PAGE_SIZE];
        for (base, change) in bases.iter().zip(self.raw.as_chunks_mut::<PAGE_SIZE>().0) {
            self.store.read_page(base, &mut base_page)?;
            add(change, &base_page);
        }
        let pages: &[Page] = self.raw.as_chunks().0;
        match PageHash::of_all(pages) == *names {
            true => Ok(()),
            false => forged("a page is not what it is named after"),
        }
    }

    /// Makes everything durable and found that was taken so far.
    pub fn settle(&mut self) -> Result<(), Error> {
        if let Some(pack) = self.pack.take() {
            self.taken.bytes += pack.finish()?.stored_bytes;
        }
        Ok(())
    }

    /// Makes the snapshot one of the machine's here, if everything is there that it takes, with its tags. `nearest` is the
    /// one that was said to be here.
    pub fn complete(
        mut self,
        parcel: &Parcel<'_>,
        manifest: Vec<u8>,
        nearest: Option<SnapshotId>,
    ) -> Result<Sent, Error> {
        self.settle()?;
        let (store, lease) = (self.store, self.lease);
        let manifest = Manifest::decode(&store.layout().snapshot(parcel.id), parcel.id, manifest)?;
        if manifest.snapshot().draft.parent != nearest {
            store.check_own_trees(&manifest, nearest, &lease)?;
        }
        self.taken.bytes += store.receive(&manifest, &lease)?;
        self.taken.snapshots += 1;
        store.refer(parcel, &lease)?;
        Ok(self.taken)
    }

    /// Adds a snapshot that is here already to the machine's history.
    pub fn refer(self, parcel: &Parcel<'_>) -> Result<Sent, Error> {
        self.store.refer(parcel, &self.lease)?;
        Ok(self.taken)
    }
}

impl Store {
    /// Fails unless the trees of a snapshot are here, and every page that they name and no older snapshot does.
    fn check_own_trees(
        &self,
        manifest: &Manifest,
        nearest: Option<SnapshotId>,
        lease: &Lease,
    ) -> Result<(), Error> {
        self.refresh()?;
        let before = nearest.map(|id| self.page_tables(id)).transpose()?.unwrap_or_default();
        let nothing = PageTable::new();
        for (region, table) in self.read_trees(&manifest.snapshot())? {
            let changed = table.differing(before.get(&region).unwrap_or(&nothing));
            self.check_all_are_here(changed.iter().map(|page| table.get(page)).collect(), lease)?;
        }
        Ok(())
    }
}
