//! Is everything still what was written? The one place where every page is hashed again; and having damage mended.
//!
//! ```text
//!   refs ─▶ walk: manifests, trees, in which frames pages are ─▶ frames: each of them, on all cores
//!                     │                                            │
//!                     └──▶ affected: what can still be restored ◀──┤
//!                                                                  └─▶ repair: from another store, and again
//! ```

mod affected;
mod frames;
mod repair;
mod walk;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use watari_types::{ErrorReport, Generation, MachineId, PageHash, SnapshotId};

use crate::error::{At, Error};
use crate::pack::PackId;
use crate::packs::MOST_MOVES;
use crate::store::Store;

use frames::{Flaw, FrameCheck, Lost, frames_of};
use walk::Walk;

pub use repair::Repaired;

/// How far verifying has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Pages hashed so far.
    pub pages_done: u64,
    /// Pages to be hashed in all.
    pub pages_total: u64,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Manifests that were checked.
    pub snapshots_checked: u64,
    /// Pages that were hashed.
    pub pages_checked: u64,
    /// What is not as it was written, by path; empty if all is well.
    pub damaged: Vec<Damage>,
    /// The snapshots that suffer from it, by machine and generation; all others can be restored.
    pub affected: Vec<Affected>,
}

/// A file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// A snapshot that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// In whose history it is.
    pub machine: MachineId,
    /// Its generation there.
    pub generation: Generation,
    /// Which it is; not known if the ref is damaged.
    pub id: Option<SnapshotId>,
    /// What it lacks, or the first thing.
    pub what: String,
}

impl Damage {
    /// `file` is named where the error does not name one itself.
    fn new(file: &Path, error: &Error) -> Damage {
        match error {
            Error::Damaged { path, what } => Damage { path: path.clone(), what: what.clone() },
            other => Damage { path: file.to_owned(), what: ErrorReport::chain(other) },
        }
    }
}

/// What one look at everything found, in terms of what it takes to mend it.
#[derive(Default)]
struct Findings {
    snapshots_checked: u64,
    pages_checked: u64,
    damaged: Vec<Damage>,
    /// Refs of snapshots that cannot be read.
    refs: Vec<(MachineId, Generation)>,
    /// Manifests that are needed and damaged, or not there.
    manifests: HashSet<SnapshotId>,
    /// Pages that are needed and in no readable pack.
    missing: HashSet<PageHash>,
    /// What is wrong with packs that can be opened.
    flaws: Vec<Flaw>,
}

impl Store {
    /// Checks what `machine`'s refs reach, or everything: each ref, each manifest's id, signature and device
    /// state, that all pages it names are there, and, on all cores, each frame and each page of it.
    ///
    /// Damage is no error but what the report is for. `progress` is called from several threads.
    pub fn verify(
        &self,
        machine: Option<MachineId>,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<VerifyReport, Error> {
        // So that nothing it finds named goes away before it gets there; it may be put aside.
        let _lease = match self.lease() {
            // Nor does anything where nobody can write.
            Err(Error::ReadOnly { .. }) => self.refresh().map(|()| None)?,
            lease => Some(lease?),
        };
        let found = self.examine(machine, &mut HashSet::new(), progress)?;
        self.report(machine, found)
    }

    /// Looks at everything but at the frames that are known to be `sound`, to which it adds.
    fn examine(
        &self,
        machine: Option<MachineId>,
        sound: &mut HashSet<(PackId, u32)>,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<Findings, Error> {
        let (mut pages_checked, mut set_aside, mut moves) = (0, HashSet::new(), 0);
        loop {
            let mut found = self.look(machine, sound, progress)?;
            pages_checked += found.pages_checked;
            // Condemned before this began, and removed since: what was needed of them is elsewhere.
            let gone = found.flaws.extract_if(.., |flaw| flaw.error.is_gone() && moves < MOST_MOVES).count();
            moves += usize::from(gone > 0);
            // Opened before they were damaged: what is needed of them is missing, when it is looked for again.
            let mut is_new = false;
            for flaw in found.flaws.extract_if(.., |flaw| matches!(flaw.lost, Lost::Pack)) {
                self.packs().set_aside(flaw.pack.id, flaw.pack.is_condemned, &flaw.error);
                is_new |= set_aside.insert(flaw.pack.id);
            }
            if gone == 0 && !is_new {
                let flawed = found.flaws.iter().map(|flaw| Damage::new(&flaw.pack.path, &flaw.error));
                found.damaged.extend(flawed);
                return Ok(Findings { pages_checked, ..found });
            }
        }
    }

    fn look(
        &self,
        machine: Option<MachineId>,
        sound: &mut HashSet<(PackId, u32)>,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<Findings, Error> {
        let mut walk = Walk::new(self);
        for machine in machine.map_or_else(|| self.machines(), |machine| Ok(vec![machine]))? {
            walk.machine(machine)?;
        }
        walk.follow()?;
        let (mut frames, mut found) = walk.into_findings();
        if machine.is_none() {
            let packs = self.packs().all();
            frames.extend(packs.iter().filter(|pack| !pack.is_condemned).flat_map(frames_of));
        }
        frames.retain(|frame, _| !sound.contains(frame));
        let unreadable = self.packs().unreadable();
        found.damaged.extend(unreadable.iter().map(|(path, error)| Damage::new(path, error)));
        let check = FrameCheck::new(self, frames.iter().map(|((_, frame), pack)| (pack.clone(), *frame)));
        found.flaws = check.run(progress).at("start decompressing", &self.layout().root)?;
        found.pages_checked = check.pages_done();
        sound.extend(frames.into_keys());
        found.flaws.iter().for_each(|flaw| sound.retain(|(pack, _)| *pack != flaw.pack.id));
        Ok(found)
    }

    fn report(&self, machine: Option<MachineId>, found: Findings) -> Result<VerifyReport, Error> {
        let affected = match found.damaged.is_empty() {
            true => Vec::new(),
            false => self.affected(machine, &found)?,
        };
        let Findings { snapshots_checked, pages_checked, mut damaged, .. } = found;
        damaged.sort();
        damaged.dedup();
        Ok(VerifyReport { snapshots_checked, pages_checked, damaged, affected })
    }
}
