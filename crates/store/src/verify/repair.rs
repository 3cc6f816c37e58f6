//! Mending what is damaged from a store that has it whole.
//!
//! What is written once is never changed, so a damaged pack is mended by another one: what can be read of the old and what
//! the other store has of the rest. The old one goes, because a page must not be found where it cannot be read: to
//! `condemned/`, from where the next collection removes it, or, if something of it was nowhere to be had, to `damaged/`,
//! where nothing looks for anything and people may.
//!
//! Mending one thing can show the next: a node of a tree, and what is below it. So everything is looked at again, but for
//! frames that were found sound, until nothing is left to mend. Whatever instant it stops at, no less can be read than before.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use watari_types::{MachineId, PAGE_SIZE, PageHash, SnapshotId};

use super::frames::Lost;
use super::{Findings, VerifyProgress, VerifyReport};
use crate::collect::{Alone, Reached};
use crate::error::Error;
use crate::files;
use crate::lease::Lease;
use crate::pack::{Group, Pack, PackId};
use crate::store::Store;

/// What was had back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Refs of snapshots.
    pub refs: u64,
    /// Manifests.
    pub snapshots: u64,
    /// Pages.
    pub pages: u64,
    /// Packs whose sound pages were written anew, or that hold nothing that is needed: none of them is in use any more.
    pub packs: u64,
}

impl Store {
    /// Verifies like [`Store::verify`], takes what is damaged or missing from another store as far as it is there, and
    /// verifies again: what the report says is what is left. Nothing is believed of what the other store holds but what its
    /// name proves; a ref is taken if the snapshot it names says that it is the machine's of that generation.
    ///
    /// # Errors
    /// [`Error::Collecting`] if garbage is being collected; nothing was changed. After another error, as of a depot that
    /// cannot be reached any more, some of it may be mended; it may be tried again.
    pub fn repair(
        &self,
        machine: Option<MachineId>,
        from: &Store,
        progress: &(dyn Fn(VerifyProgress) + Sync),
    ) -> Result<(VerifyReport, Repaired), Error> {
        let _alone = Alone::new(self)?;
        let mut sound = HashSet::new();
        let (mut repaired, mut pages_checked) = (Repaired::default(), 0);
        loop {
            // A new one each time: what was condemned just now is not to be counted on.
            let lease = self.lease()?;
            let mut found = self.examine(machine, &mut sound, progress)?;
            pages_checked += found.pages_checked;
            let before = repaired;
            Repair { to: self, from, lease, repaired: &mut repaired }.mend(&found)?;
            if repaired == before {
                found.pages_checked = pages_checked;
                return Ok((self.report(machine, found)?, repaired));
            }
            self.refresh()?;
        }
    }
}

struct Repair<'a> {
    to: &'a Store,
    from: &'a Store,
    lease: Lease,
    repaired: &'a mut Repaired,
}

/// A pack, and those of its pages that cannot be read.
type Flawed = BTreeMap<PackId, (Arc<Pack>, Vec<(u32, PageHash)>)>;

impl Repair<'_> {
    fn mend(&mut self, found: &Findings) -> Result<(), Error> {
        let before = *self.repaired;
        self.refs(found)?;
        for id in &found.manifests {
            self.manifests(*id)?;
        }
        self.packs(found, |lost| if let Lost::Pages(pages) = lost { Some(pages) } else { None })?;
        if *self.repaired == before {
            // They are not had back with what they are changes of.
            self.packs(found, |lost| if let Lost::Changes(pages) = lost { Some(pages) } else { None })?;
        }
        if *self.repaired == before && found.missing.is_empty() {
            self.leave_unreadable()?;
        }
        Ok(())
    }

    fn refs(&mut self, found: &Findings) -> Result<(), Error> {
        for (machine, generation) in &found.refs {
            let Some(id) = had(self.from.refs(*machine).get(*generation))?.flatten() else { continue };
            let Some(manifest) = had(self.from.manifest(id))? else { continue };
            let draft = manifest.snapshot().draft;
            if draft.config.id == *machine && draft.generation == *generation {
                self.manifests(id)?;
                self.to.refs(*machine).mend(*generation, id)?;
                self.repaired.refs += 1;
            }
        }
        Ok(())
    }

    /// Takes a manifest and those before it, as far as they cannot be read here.
    fn manifests(&mut self, id: SnapshotId) -> Result<(), Error> {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            if self.to.manifest(id).is_ok_and(|manifest| manifest.signer().is_ok()) {
                break;
            }
            let Some(manifest) = had(self.from.manifest(id))?.filter(|manifest| manifest.signer().is_ok())
            else {
                break;
            };
            let file = self.to.layout().new_file()?;
            file.write_at(manifest.bytes(), 0)?;
            file.publish(&self.to.layout().snapshot(id))?;
            self.repaired.snapshots += 1;
            next = manifest.snapshot().draft.parent;
        }
        Ok(())
    }

    /// Takes the pages that are missing and those that are lost in packs, and does without these packs.
    fn packs(
        &mut self,
        found: &Findings,
        lost: impl Fn(&Lost) -> Option<&Vec<(u32, PageHash)>>,
    ) -> Result<(), Error> {
        let mut flawed = Flawed::new();
        for flaw in &found.flaws {
            if let Some(pages) = lost(&flaw.lost) {
                let (_, known) = flawed.entry(flaw.pack.id).or_insert((Arc::clone(&flaw.pack), Vec::new()));
                known.extend(pages);
            }
        }
        let lost = flawed.values().flat_map(|(_, pages)| pages.iter().map(|(_, page)| *page));
        let had = self.fetch(found.missing.iter().copied().chain(lost).collect())?;
        for (pack, pages) in flawed.values() {
            self.replace(pack, pages, &had)?;
        }
        Ok(())
    }

    /// Takes pages from the other store; which of them it has.
    fn fetch(&mut self, pages: HashSet<PageHash>) -> Result<HashSet<PageHash>, Error> {
        let mut wanted: Vec<(u32, PageHash)> = (0..).zip(pages).collect();
        self.from.packs().sort_as_they_lie(&mut wanted);
        let mut pack = self.to.new_pack(&self.lease)?;
        let mut fetched = HashSet::new();
        let mut page = [0; PAGE_SIZE];
        for (_, name) in wanted {
            if had(self.from.read_page(&name, &mut page))?.is_some() && PageHash::of(&page) == name {
                pack.put_copy(name, &page, None, Group::default())?;
                fetched.insert(name);
            }
        }
        pack.finish()?;
        self.repaired.pages += fetched.len() as u64;
        Ok(fetched)
    }

    /// Writes what can be read of a pack into a new one and does without it; unless nothing of the rest was had back.
    fn replace(
        &mut self,
        pack: &Arc<Pack>,
        lost: &[(u32, PageHash)],
        had: &HashSet<PageHash>,
    ) -> Result<(), Error> {
        let is_elsewhere = |page: &PageHash| self.to.find(page).is_some_and(|place| place.pack.id != pack.id);
        let missing = lost.iter().filter(|(_, page)| !had.contains(page) && !is_elsewhere(page)).count();
        if missing == lost.len() {
            return Ok(());
        }
        let rest = Reached::all_but(Arc::clone(pack), lost.iter().map(|(position, _)| *position));
        self.to.merge(&[&rest], &self.lease)?;
        let layout = self.to.layout();
        match missing {
            0 => files::move_to(&pack.path, &layout.condemned_pack(pack.id))?,
            _ => self.put_by(&pack.path)?,
        }
        files::sync_parent(&pack.path)?;
        self.repaired.packs += 1;
        Ok(())
    }

    /// Does without packs that cannot be opened, now that nothing is missing.
    fn leave_unreadable(&mut self) -> Result<(), Error> {
        for (path, error) in self.to.packs().unreadable() {
            if let Error::Damaged { .. } = error {
                self.put_by(&path)?;
                files::sync_parent(&path)?;
                self.repaired.packs += 1;
            }
        }
        Ok(())
    }

    /// Keeps a file where nothing looks for anything.
    fn put_by(&self, path: &Path) -> Result<(), Error> {
        let folder = self.to.layout().damaged();
        files::ensure_dir(&folder)?;
        let name = path.file_name().unwrap_or_default();
        files::move_to(path, &folder.join(name))?;
        files::sync_folder(&folder)
    }
}

/// Nothing, if it is not there or damaged there, too.
fn had<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Damaged { .. } | Error::MissingPage { .. } | Error::MissingSnapshot { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}
