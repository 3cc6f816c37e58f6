//! Removing what nothing needs any more, and merging what is in many small packs, while others read and write.
//!
//! ```text
//!   list what there is, wait for the leases there are: refs name then what is meant to stay
//!                             │
//!   refs ─▶ mark ─▶ plan ─▶ write what is needed of some packs into new ones
//!                             │
//!                           put aside: manifests, then packs, into condemned/
//!                             │
//!                           wait for the leases that began meanwhile
//!                             │
//!   refs ─▶ mark what is new ─▶ bring back what is needed after all, remove the rest
//! ```
//!
//! Whatever instant it stops at, nothing that a ref reaches is gone: readers find what is condemned, and the next run goes
//! on with it. See [`Lease`] for why nobody waits for it.

mod mark;
mod plan;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use watari_types::{ErrorReport, Generation, MachineId, SnapshotId};

use crate::error::{At, Error};
use crate::files;
use crate::history::manifests_in;
use crate::lease::Lease;
use crate::pack::{Pack, PackId};
use crate::store::Store;

use mark::Mark;
use plan::{GARBAGE, Plan, Use};

pub(crate) use mark::Reached;

/// How often it is looked whether the leases are over.
const LOOK: Duration = Duration::from_millis(50);

/// How garbage is to be collected.
pub struct Collecting<'a> {
    /// Snapshots that are needed though no ref may name them; asked for whenever it matters.
    pub also: &'a dyn Fn() -> Vec<SnapshotId>,
    /// How long to wait for writers. What they may use stays until the next time.
    pub patience: Duration,
    /// What is done right now, how many steps of how many.
    pub progress: &'a dyn Fn(&str, u64, u64),
    /// Snapshots of machines that count as if they had been taken out of their histories, to see what that would free.
    pub without: &'a BTreeSet<(MachineId, Generation)>,
}

/// What collecting garbage did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Manifests that nothing needed.
    pub snapshots_removed: u64,
    /// Packs that are gone, with all or with some of their pages.
    pub packs_removed: u64,
    /// Packs that hold the rest of them now.
    pub packs_written: u64,
    /// Bytes that were removed,
    pub removed_bytes: u64,
    /// and bytes that were written.
    pub written_bytes: u64,
    /// How long writers were waited for.
    pub waited_ms: u64,
    /// Whether writers were waited for in vain, and some of it is left to the next time.
    pub is_held_back: bool,
    /// Whether there is more to be done, which the next collection does: one takes a part of the store's space for a while.
    pub is_part: bool,
    /// Why packs that were to be merged stay as they are.
    pub left: Vec<String>,
}

impl Collected {
    /// How many bytes are free that were not.
    pub fn freed_bytes(&self) -> u64 {
        self.removed_bytes.saturating_sub(self.written_bytes)
    }
}

impl Store {
    /// Removes what no ref reaches, and merges small packs, while others read and write.
    ///
    /// # Errors
    /// If something that is needed cannot be read, nothing is removed. After another error less is removed than could be.
    pub fn collect(&self, how: &Collecting<'_>) -> Result<Collected, Error> {
        let _alone = Alone::new(self)?;
        let mut done = Collected::default();
        let candidates = self.candidates()?;
        if !self.wait_for_leases(how, &mut done)? {
            return Ok(Collected { is_held_back: true, ..done });
        }
        let mut mark = self.put_aside(&candidates, how, &mut done)?;
        if !self.wait_for_leases(how, &mut done)? {
            return Ok(Collected { is_held_back: true, ..done });
        }
        self.refresh()?;
        self.mark(&mut mark, how, &|pack| !pack.is_condemned)?;
        self.sync_refs()?;
        let saved = self.save(&mark, &mut done)?;
        self.judge(&mark, &saved, &mut done)?;
        self.refresh()?;
        self.packs().save();
        Ok(done)
    }

    /// What may be removed: what is there now. Once the leases are over that there are now, refs name what of it their
    /// holders have made.
    fn candidates(&self) -> Result<Candidates, Error> {
        self.refresh()?;
        let packs = self.packs().all().into_iter().map(|pack| (pack.id, pack)).collect();
        Ok(Candidates { packs, snapshots: manifests_in(self.layout(), &self.layout().snapshots())? })
    }

    /// Merges what is worth it, and puts aside what is not needed. Returns what was found to be needed.
    fn put_aside(
        &self,
        candidates: &Candidates,
        how: &Collecting<'_>,
        done: &mut Collected,
    ) -> Result<Mark<'_>, Error> {
        let lease = self.lease()?;
        self.root_orphans(&self.kept(how)?, &lease, done)?;
        let mut mark = Mark::new(self);
        self.mark(&mut mark, how, &|pack| !candidates.has(pack))?;
        let plan = Plan::of(&candidates.uses(&mark));
        if !plan.merged.is_empty() {
            mark.note_newest(&self.newest()?)?;
        }
        let gone = self.rewrite(&mark, &plan, &lease, how, done)?;
        let layout = self.layout();
        // Manifests first: who finds no manifest needs no page of it.
        for (id, path) in candidates.not_needed(&mark) {
            files::move_to(path, &layout.condemned_snapshot(*id))?;
        }
        gone.iter().try_for_each(|id| files::move_to(&layout.pack(*id), &layout.condemned_pack(*id)))?;
        mark.forget_places(&gone);
        Ok(mark)
    }

    /// Marks what refs reach now, and packs that stay anyway.
    fn mark(
        &self,
        mark: &mut Mark<'_>,
        how: &Collecting<'_>,
        stays: &dyn Fn(&Pack) -> bool,
    ) -> Result<(), Error> {
        let progress = |at, of| (how.progress)("looking for what is needed", at, of);
        mark.follow(&self.kept(how)?, stays, &progress)
    }

    /// What [`Store::collect`] would remove at least, if it were called now. Nothing is changed.
    pub fn collect_dry(&self, how: &Collecting<'_>) -> Result<Collected, Error> {
        let candidates = self.candidates()?;
        let mut mark = Mark::new(self);
        self.mark(&mut mark, how, &|pack| !candidates.has(pack))?;
        let uses = candidates.uses(&mark);
        let plan = Plan::of(&uses);
        let uses: BTreeMap<PackId, Use> = uses.into_iter().map(|pack| (pack.id, pack)).collect();
        let gone: Vec<&Use> =
            plan.dead.iter().chain(plan.merged.iter().flatten()).filter_map(|id| uses.get(id)).collect();
        let manifests = candidates.not_needed(&mark).map(|(_, path)| length(path));
        Ok(Collected {
            snapshots_removed: candidates.not_needed(&mark).count() as u64,
            packs_removed: gone.len() as u64,
            packs_written: plan.merged.len() as u64,
            removed_bytes: gone.iter().map(|pack| pack.bytes).chain(manifests).sum(),
            written_bytes: gone.iter().map(|pack| pack.needed_bytes()).sum(),
            ..Collected::default()
        })
    }

    /// The snapshots that refs name, and those that are needed besides.
    fn kept(&self, how: &Collecting<'_>) -> Result<BTreeSet<SnapshotId>, Error> {
        let mut kept: BTreeSet<SnapshotId> = (how.also)().into_iter().collect();
        for machine in self.machines_with_refs()? {
            let survey = self.refs(machine).survey()?.whole()?;
            let is_out = |generation: Generation| how.without.contains(&(machine, generation));
            let snapshots = survey.snapshots.into_iter().filter(|(generation, _)| !is_out(*generation));
            kept.extend(snapshots.map(|(_, id)| id));
            kept.extend(survey.tags.into_values().chain(survey.head.map(|head| head.id)));
        }
        Ok(kept)
    }

    /// The snapshot of each machine that is most likely to be restored.
    fn newest(&self) -> Result<BTreeSet<SnapshotId>, Error> {
        let mut newest = BTreeSet::new();
        for machine in self.machines_with_refs()? {
            let survey = self.refs(machine).survey()?.whole()?;
            newest.extend(survey.head.map(|head| head.id));
            newest.extend(survey.snapshots.last().map(|(_, id)| *id));
        }
        Ok(newest)
    }

    /// Writes the trees of snapshots whose parent is not kept, so that they need no list before their own.
    /// Without space for them those lists are needed on, which is noted.
    fn root_orphans(
        &self,
        kept: &BTreeSet<SnapshotId>,
        lease: &Lease,
        done: &mut Collected,
    ) -> Result<(), Error> {
        match self.put_trees_of_orphans(kept, lease) {
            Err(e @ Error::NoSpace { .. }) => done.left.push(ErrorReport::chain(&e)),
            written => {
                let bytes = written?;
                done.written_bytes += bytes;
                done.packs_written += u64::from(bytes > 0);
            }
        }
        Ok(())
    }

    fn put_trees_of_orphans(&self, kept: &BTreeSet<SnapshotId>, lease: &Lease) -> Result<u64, Error> {
        let mut orphans = Vec::new();
        for id in kept {
            let snapshot = self.snapshot(*id)?;
            let is_orphan = snapshot.draft.parent.is_some_and(|parent| !kept.contains(&parent));
            if is_orphan && !snapshot.roots.is_empty() && !self.has_trees(&snapshot) {
                orphans.push(snapshot);
            }
        }
        // In the order of history, so that of each only what is not in the one before has to be written.
        orphans.sort_by_key(|snapshot| (snapshot.draft.created_unix_ms, snapshot.draft.generation));
        let mut bytes = 0;
        for orphan in orphans {
            let mut pack = self.new_pack(lease)?;
            pack.put_trees_now(&mut self.regions(orphan.id)?, &orphan.draft.regions)?;
            bytes += pack.finish()?.stored_bytes;
        }
        Ok(bytes)
    }

    /// Whether all leases are over that there are now.
    fn wait_for_leases(&self, how: &Collecting<'_>, done: &mut Collected) -> Result<bool, Error> {
        let mut leases = self.leases()?;
        let (begun, all) = (Instant::now(), leases.len() as u64);
        while !leases.are_over() {
            if begun.elapsed() >= how.patience {
                done.waited_ms += begun.elapsed().as_millis() as u64;
                return Ok(false);
            }
            (how.progress)("waiting for snapshots being made", all - leases.len() as u64, all);
            thread::sleep(LOOK);
        }
        done.waited_ms += begun.elapsed().as_millis() as u64;
        Ok(true)
    }

    /// Writes what is needed after all of condemned packs that are garbage otherwise; which packs these are. A snapshot that
    /// was made meanwhile may have come upon a few pages of a large one. No lease counts on them any more, so they can go.
    fn save(&self, mark: &Mark<'_>, done: &mut Collected) -> Result<BTreeSet<PackId>, Error> {
        let is_wasteful = |reached: &&Reached| {
            let pages = u64::from(reached.pack.pages);
            reached.pack.is_condemned && pages - reached.len() > pages / GARBAGE
        };
        let needed: Vec<&Reached> = mark.packs.values().filter(is_wasteful).collect();
        if needed.is_empty() {
            return Ok(BTreeSet::new());
        }
        match self.merge(&needed, &self.lease()?) {
            Err(e @ (Error::NoSpace { .. } | Error::Damaged { .. })) => {
                done.left.push(ErrorReport::chain(&e));
                Ok(BTreeSet::new())
            }
            written => {
                done.written_bytes += written?.stored_bytes;
                done.packs_written += 1;
                Ok(needed.iter().map(|reached| reached.pack.id).collect())
            }
        }
    }

    /// Removes of what is condemned all that is not needed or was saved, and brings the rest back.
    fn judge(&self, mark: &Mark<'_>, saved: &BTreeSet<PackId>, done: &mut Collected) -> Result<(), Error> {
        let layout = self.layout();
        for path in files::list(&layout.condemned())? {
            match Condemned::parse(&path) {
                None => continue,
                Some(Condemned::Pack(id)) if self.is_needed(id, mark) && !saved.contains(&id) => {
                    files::move_to(&path, &layout.pack(id))?;
                    continue;
                }
                Some(Condemned::Snapshot(id)) if mark.snapshots.contains(&id) => {
                    files::move_to(&path, &layout.snapshot(id))?;
                    continue;
                }
                Some(Condemned::Pack(_)) => done.packs_removed += 1,
                Some(Condemned::Snapshot(_)) => done.snapshots_removed += 1,
            }
            done.removed_bytes += length(&path);
            files::remove(&path)?;
        }
        Ok(())
    }

    /// Whether a condemned pack is needed. Of one that cannot be read nobody knows.
    fn is_needed(&self, pack: PackId, mark: &Mark<'_>) -> bool {
        let is_reached = |reached: &Reached| reached.pack.is_condemned;
        self.packs().is_unreadable(pack) || mark.packs.get(&pack).is_some_and(is_reached)
    }
}

/// Something in `condemned/`.
enum Condemned {
    Pack(PackId),
    Snapshot(SnapshotId),
}

impl Condemned {
    fn parse(path: &Path) -> Option<Condemned> {
        let name = path.file_name()?.to_str()?;
        if let Some(id) = name.strip_suffix(".pack") {
            return PackId::parse(id).map(Condemned::Pack);
        }
        name.strip_suffix(".snap")?.parse().ok().map(Condemned::Snapshot)
    }
}

/// What may be removed.
struct Candidates {
    packs: BTreeMap<PackId, Arc<Pack>>,
    snapshots: Vec<(SnapshotId, PathBuf)>,
}

impl Candidates {
    /// What is needed of each pack.
    fn uses(&self, mark: &Mark<'_>) -> Vec<Use> {
        let one = |pack: &Arc<Pack>| {
            let needed = mark.packs.get(&pack.id).map_or(0, Reached::len);
            Use { id: pack.id, bytes: length(&pack.path), pages: u64::from(pack.pages), needed }
        };
        self.packs.values().map(one).collect()
    }

    fn has(&self, pack: &Pack) -> bool {
        self.packs.contains_key(&pack.id)
    }

    fn not_needed(&self, mark: &Mark<'_>) -> impl Iterator<Item = &(SnapshotId, PathBuf)> {
        self.snapshots.iter().filter(|(id, _)| !mark.snapshots.contains(id))
    }
}

/// The length of a file, or nothing if it is gone.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// One at a time removes what is not needed, or replaces it.
pub(crate) struct Alone {
    /// Closing it gives the lock back.
    _lock: File,
}

impl Alone {
    pub(crate) fn new(store: &Store) -> Result<Alone, Error> {
        let path = store.layout().collector();
        let file = File::options().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Alone { _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::Collecting { store: store.layout().root.clone() })
            }
            Err(e) => Err(e).at("lock", &path),
        }
    }
}
