//! Which snapshots suffer from damage.

use std::collections::HashSet;

use watari_types::{ErrorReport, MachineId, PageHash, SnapshotId};

use super::frames::Lost;
use super::{Affected, Findings};
use crate::error::Error;
use crate::store::Store;

impl Store {
    /// The snapshots in a machine's history, or in any, that cannot be restored because of what was found. Takes as long as
    /// reading what they hold page by page, without the pages.
    pub(super) fn affected(
        &self,
        machine: Option<MachineId>,
        found: &Findings,
    ) -> Result<Vec<Affected>, Error> {
        let lost = self.lost(found);
        let mut affected = Vec::new();
        for machine in machine.map_or_else(|| self.machines(), |machine| Ok(vec![machine]))? {
            let refs = self.refs(machine);
            for generation in refs.generations()? {
                let (id, lacks) = match refs.get(generation) {
                    Ok(None) => continue,
                    Ok(Some(id)) => (Some(id), self.lacks(id, &lost)),
                    Err(e) => (None, Err(e)),
                };
                if let Some(what) = lacks.unwrap_or_else(|e| Some(ErrorReport::chain(&e))) {
                    affected.push(Affected { machine, generation, id, what });
                }
            }
        }
        Ok(affected)
    }

    /// The pages that cannot be read wherever they are.
    fn lost(&self, found: &Findings) -> HashSet<PageHash> {
        let mut lost = found.missing.clone();
        for flaw in &found.flaws {
            let (Lost::Pages(pages) | Lost::Changes(pages)) = &flaw.lost else { continue };
            let is_there = |position: u32, page: &PageHash| {
                self.find(page)
                    .is_none_or(|place| (place.pack.id, place.position()) == (flaw.pack.id, position))
            };
            lost.extend(
                pages.iter().filter(|(position, page)| is_there(*position, page)).map(|(_, page)| *page),
            );
        }
        lost
    }

    /// Which pages of a snapshot cannot be read, if any. Fails if something else cannot.
    fn lacks(&self, id: SnapshotId, lost: &HashSet<PageHash>) -> Result<Option<String>, Error> {
        let manifest = self.manifest(id)?;
        manifest.signer()?;
        manifest.device_state()?;
        for (region, table) in self.page_tables(id)? {
            let mut pages = table.iter().filter(|(_, page)| lost.contains(page));
            if let Some((first, _)) = pages.next() {
                let pages = 1 + pages.count();
                return Ok(Some(format!("{pages} pages of {region} are lost, the first is number {first}")));
            }
        }
        Ok(None)
    }
}
