//! Snapshots from one store into another: what is not there yet, and nothing else.
//!
//! Pages first, those that others are changes of before these, then the manifest, then the refs. So whatever instant it
//! stops at, what can be reached is whole, and who tries again finds the pages that have arrived. Every page is hashed on
//! its way: what comes from elsewhere is not believed, and what is written anew would look sound for ever.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use watari_types::{Generation, MachineId, PAGE_SIZE, PageHash, PageTable, SnapshotId};

use crate::error::Error;
use crate::lease::Lease;
use crate::locate::Wanted;
use crate::manifest::{Manifest, Run};
use crate::pack::{Decoder, Group, PackWriter, broken};
use crate::regions::Regions;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// A pack is ended at this length, so that what has arrived is not lost with what has not.
pub(crate) const PACK_BYTES: u64 = 64 << 20;
/// For fewer frames than this another thread, and with it another pack, is not worth it.
const FRAMES_PER_THREAD: usize = 16;

/// How far sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendProgress {
    /// Pages sent so far.
    pub pages_done: u64,
    /// Pages that were not there.
    pub pages_total: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Manifests that were not there.
    pub snapshots: u64,
    /// Pages that were not there.
    pub pages: u64,
    /// What was written for all that.
    pub bytes: u64,
}

/// Which snapshot of whose history is sent.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Whose.
    pub machine: MachineId,
    /// Its generation there.
    pub generation: Generation,
    /// Which.
    pub id: SnapshotId,
    /// Its tags.
    pub tags: &'a [String],
}

impl Store {
    /// Puts a snapshot and its tags into another store, as part of the machine's history there. Of its pages and manifests
    /// only those are sent that are not there. What the machine's present state descends from there stays what it is.
    /// `progress` is called from several threads.
    ///
    /// # Errors
    /// [`Error::GenerationTaken`] if the machine has another snapshot of that generation there; nothing was sent. After
    /// another error it may be tried again, and goes on from where it was.
    pub fn send(
        &self,
        parcel: &Parcel<'_>,
        to: &Store,
        progress: &(dyn Fn(SendProgress) + Sync),
    ) -> Result<Sent, Error> {
        let Parcel { machine, generation, id, .. } = *parcel;
        let (_source, lease) = (self.lease()?, to.lease()?);
        let existing = to.refs(machine).get(generation)?;
        if let Some(existing) = existing.filter(|existing| *existing != id) {
            return Err(Error::GenerationTaken { machine, generation, existing });
        }
        let mut sent = Sent::default();
        for snapshot in self.absent(id, to, &lease)?.into_iter().rev() {
            self.send_snapshot(&snapshot, to, &lease, progress, &mut sent)?;
        }
        to.refer(parcel, &lease)?;
        Ok(sent)
    }

    /// Makes a snapshot that is here, and its tags, part of the machine's history.
    pub(crate) fn refer(&self, parcel: &Parcel<'_>, lease: &Lease) -> Result<(), Error> {
        let Parcel { machine, generation, id, tags } = *parcel;
        let refs = self.refs(machine);
        if refs.get(generation)?.is_none() {
            refs.add(generation, id, lease)?;
        }
        for tag in tags {
            if refs.tagged(tag)? != Some(id) {
                refs.tag(tag, id, lease)?;
            }
        }
        Ok(())
    }

    /// The snapshot, unless it is in the other store, and those before it that it cannot be read without: each that says
    /// what it holds itself, as all have since there are roots, needs none.
    fn absent(&self, id: SnapshotId, to: &Store, lease: &Lease) -> Result<Vec<Snapshot>, Error> {
        let mut absent = Vec::new();
        for snapshot in self.line(id) {
            let snapshot = snapshot?;
            if to.has_snapshot(snapshot.id, lease)? {
                break;
            }
            let is_enough = !snapshot.roots.is_empty();
            absent.push(snapshot);
            if is_enough {
                break;
            }
        }
        Ok(absent)
    }

    fn send_snapshot(
        &self,
        snapshot: &Snapshot,
        to: &Store,
        lease: &Lease,
        progress: &(dyn Fn(SendProgress) + Sync),
        sent: &mut Sent,
    ) -> Result<(), Error> {
        let manifest = self.manifest(snapshot.id)?;
        let has_parent = match snapshot.draft.parent {
            Some(parent) => to.has_snapshot(parent, lease)?,
            None => true,
        };
        let names = match has_parent {
            true => manifest.pages()?,
            false => {
                let before = self.nearest(snapshot, |before| to.has_snapshot(before.id, lease))?;
                self.pages_since(snapshot, before.map(|before| before.id))?
            }
        };
        let absent: HashSet<PageHash> = names.into_iter().filter(|page| !to.keeps(page, lease)).collect();
        sent.pages += absent.len() as u64;
        sent.bytes += Sender::new(self, to, lease, absent.len() as u64, progress).send(absent)?;
        if !has_parent || self.has_trees(snapshot) {
            sent.bytes += self.send_trees(snapshot, to, lease)?;
        }
        sent.bytes += to.receive(&manifest, lease)?;
        sent.snapshots += 1;
        Ok(())
    }

    /// The pages that changed since one it descends from, or all, but for zeros.
    pub(crate) fn pages_since(
        &self,
        snapshot: &Snapshot,
        before: Option<SnapshotId>,
    ) -> Result<Vec<PageHash>, Error> {
        if before.is_some() && before == snapshot.draft.parent {
            return self.manifest(snapshot.id)?.pages();
        }
        let tables = self.page_tables(snapshot.id)?;
        let Some(before) = before else {
            return Ok(tables.values().flat_map(|table| table.iter().map(|(_, page)| page)).collect());
        };
        let changed = self.changed_between(before, snapshot.id)?;
        let pages = changed.iter().filter_map(|(region, pages)| Some((tables.get(region)?, pages)));
        let names = pages.flat_map(|(table, pages)| pages.iter().map(|page| table.get(page)));
        Ok(names.filter(|page| !page.is_zero_page()).collect())
    }

    /// The nearest snapshot before this one for which something holds, as far as its history is there.
    fn nearest(
        &self,
        snapshot: &Snapshot,
        holds: impl Fn(&Snapshot) -> Result<bool, Error>,
    ) -> Result<Option<Snapshot>, Error> {
        for before in self.line(snapshot.id).skip(1) {
            match before {
                Err(Error::MissingSnapshot { .. }) => return Ok(None),
                before => {
                    let before = before?;
                    if holds(&before)? {
                        return Ok(Some(before));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Writes the trees of a snapshot into the other store: those of their nodes that are not there, as changes of those of
    /// the nearest snapshot before whose trees are.
    fn send_trees(&self, snapshot: &Snapshot, to: &Store, lease: &Lease) -> Result<u64, Error> {
        let rooted = self.nearest(snapshot, |before| {
            Ok(to.has_snapshot(before.id, lease)? && to.has_trees(&to.snapshot(before.id)?))
        })?;
        let mut regions = self.regions(snapshot.id)?;
        (regions.trees, regions.trees_of) = match rooted {
            Some(rooted) => (self.page_tables(rooted.id)?, Some(rooted.id)),
            None => (BTreeMap::new(), None),
        };
        self.check_trees(snapshot, &regions, to, lease)?;
        let mut pack = to.new_pack(lease)?;
        pack.put_trees_now(&mut regions, &snapshot.draft.regions)?;
        Ok(pack.finish()?.stored_bytes)
    }

    /// Fails if trees name a page that is not there and was not said to have changed: no more than a signature vouches for
    /// them.
    fn check_trees(
        &self,
        snapshot: &Snapshot,
        regions: &Regions,
        to: &Store,
        lease: &Lease,
    ) -> Result<(), Error> {
        let nothing = PageTable::new();
        for (region, table) in &regions.tables {
            let changed = table.differing(regions.trees.get(region).unwrap_or(&nothing));
            if let Some(page) = changed.iter().find(|page| !to.keeps(&table.get(*page), lease)) {
                let what = format!("its tree of {region} has a page {page} that none of its deltas has");
                return Err(Error::damaged(&self.layout().snapshot(snapshot.id), what));
            }
        }
        Ok(())
    }

    /// Whether a snapshot's manifest is there and stays.
    pub(crate) fn has_snapshot(&self, id: SnapshotId, lease: &Lease) -> Result<bool, Error> {
        match self.check_snapshot(id, lease) {
            Ok(()) => Ok(true),
            Err(Error::MissingSnapshot { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes a manifest from another store; its length.
    pub(crate) fn receive(&self, manifest: &Manifest, lease: &Lease) -> Result<u64, Error> {
        let snapshot = manifest.snapshot();
        manifest.signer()?;
        manifest.device_state()?;
        self.refresh()?;
        self.check_all_are_here(manifest.pages()?, lease)?;
        if !self.has_trees(&snapshot)
            && let Some(parent) = snapshot.draft.parent
        {
            self.check_snapshot(parent, lease)?;
        }
        let file = self.layout().new_file()?;
        file.write_at(manifest.bytes(), 0)?;
        file.publish(&self.layout().snapshot(snapshot.id))?;
        Ok(manifest.bytes().len() as u64)
    }

    /// Fails unless these pages are here, and stay as long as the lease lives.
    pub(crate) fn check_all_are_here(&self, pages: Vec<PageHash>, lease: &Lease) -> Result<(), Error> {
        let located = self.locate((0..).zip(pages))?;
        let leaves = located.iter().find(|wanted| !lease.covers(&wanted.place));
        leaves.map_or(Ok(()), |wanted| Err(self.missing(&wanted.name)))
    }
}

impl Manifest {
    /// The pages that it says have changed, but for zeros; one that several have, several times.
    fn pages(&self) -> Result<Vec<PageHash>, Error> {
        let mut pages = Vec::new();
        for (_, runs) in self.deltas()? {
            for run in runs {
                let Run::Data { hashes, .. } = run else { continue };
                pages.extend(hashes.iter().map(|hash| PageHash(*hash)).filter(|page| !page.is_zero_page()));
            }
        }
        Ok(pages)
    }
}

/// Pages on their way into another store, by several threads, each of which writes a pack of its own.
struct Sender<'a> {
    from: &'a Store,
    to: &'a Store,
    lease: &'a Lease,
    /// Packs that are being written and are not in use.
    idle: Mutex<Vec<PackWriter>>,
    bytes: AtomicU64,
    done: AtomicU64,
    total: u64,
    progress: &'a (dyn Fn(SendProgress) + Sync),
}

impl<'a> Sender<'a> {
    fn new(
        from: &'a Store,
        to: &'a Store,
        lease: &'a Lease,
        total: u64,
        progress: &'a (dyn Fn(SendProgress) + Sync),
    ) -> Sender<'a> {
        let (idle, bytes, done) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Sender { from, to, lease, idle, bytes, done, total, progress }
    }

    /// Sends the pages; how many bytes were written.
    fn send(self, pages: HashSet<PageHash>) -> Result<u64, Error> {
        let (whole, changes): (Vec<_>, Vec<_>) =
            pages.into_iter().partition(|page| self.from.find(page).is_none_or(|place| place.is_whole()));
        // A page must never be found there as a change of what is not.
        for pages in [whole, changes] {
            let frames = pages.len() / crate::pack::PAGES_PER_FRAME;
            let cores = thread::available_parallelism().map_or(1, |n| n.get());
            let threads = (frames / FRAMES_PER_THREAD).clamp(1, cores);
            self.from.each_frame((0..).zip(pages), threads, |wanted, decoder| self.frame(wanted, decoder))?;
            let written = std::mem::take(&mut *self.idle.lock());
            written.into_iter().try_for_each(|pack| self.finish(pack))?;
        }
        Ok(self.bytes.into_inner())
    }

    /// Sends the pages that are wanted of one frame.
    fn frame(&self, wanted: &[Wanted], decoder: &mut Decoder) -> Result<(), Error> {
        let idle = self.idle.lock().pop();
        let mut pack = match idle {
            Some(pack) => pack,
            None => self.to.new_pack(self.lease)?,
        };
        match self.copy(wanted, decoder, &mut pack) {
            // The pack was removed meanwhile because others hold its pages now.
            Err(e) if e.is_gone() => self.copy_singly(wanted, &mut pack)?,
            copied => copied?,
        }
        let sent = wanted.len() as u64;
        let pages_done = self.done.fetch_add(sent, Ordering::Relaxed) + sent;
        (self.progress)(SendProgress { pages_done, pages_total: self.total });
        if pack.bytes() >= PACK_BYTES {
            return self.finish(pack);
        }
        self.idle.lock().push(pack);
        Ok(())
    }

    fn copy(&self, wanted: &[Wanted], decoder: &mut Decoder, pack: &mut PackWriter) -> Result<(), Error> {
        let (source, number) = (&wanted[0].place.pack, wanted[0].place.frame);
        let content = decoder.decode_checked(source, number)?;
        let mut wanted: Vec<&Wanted> = wanted.iter().collect();
        wanted.sort_unstable_by_key(|w| w.place.slot);
        for w in wanted {
            let name = *w.page();
            let (mut page, mut change) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
            let base = content.copy(w.place.slot, &mut page);
            if let Some(base) = &base {
                change = page;
                self.from.complete(&mut page, base, source, number)?;
            }
            if PageHash::of(&page) != name {
                let frame = &source.frames()[number as usize];
                return Err(broken(source, frame, "holds other pages than the index says"));
            }
            match base.filter(|base| self.may_change(&name, base)) {
                Some(base) => pack.put_copy(name, &change, Some(base), Group::default())?,
                None => pack.put_copy(name, &page, None, Group::default())?,
            }
        }
        Ok(())
    }

    /// Whether a page can be a change of that one there.
    fn may_change(&self, page: &PageHash, base: &PageHash) -> bool {
        let place = self.to.find(base).filter(|place| place.is_whole() && self.lease.covers(place));
        place.is_some() && !self.to.contains(page)
    }

    fn copy_singly(&self, wanted: &[Wanted], pack: &mut PackWriter) -> Result<(), Error> {
        let mut page = [0; PAGE_SIZE];
        for w in wanted {
            let name = w.page();
            self.from.read_page(name, &mut page)?;
            if PageHash::of(&page) != *name {
                return Err(self.from.missing(name));
            }
            pack.put_copy(*name, &page, None, Group::default())?;
        }
        Ok(())
    }

    fn finish(&self, pack: PackWriter) -> Result<(), Error> {
        self.bytes.fetch_add(pack.finish()?.stored_bytes, Ordering::Relaxed);
        Ok(())
    }
}
