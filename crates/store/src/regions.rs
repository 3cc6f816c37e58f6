//! What the regions of a machine hold at one snapshot, and when that is to be written down whole.
//!
//! A manifest lists what changed since the snapshot before it, which is little. Now and then the trees of all regions are
//! put into packs beside it, nodes that are there already left out. So reading a snapshot means reading the trees of the
//! nearest one that has them and laying a few lists over them, however long the history is.

use std::collections::{BTreeMap, BTreeSet};

use watari_types::{Delta, PageHash, PageSet, PageTable, Region, RegionName, SnapshotId};

use crate::snapshot::Snapshot;

/// Lists that are laid over the trees of an older snapshot at most,
const MOST_LISTS: u32 = 512;
/// and the part that all pages in them may be of those that the machine holds: with these, reading the lists takes less
/// time than reading the trees (docs/decisions/0009).
const LARGEST_PART: u64 = 8;

/// What every region of a machine holds.
#[derive(Clone, Default)]
pub struct Regions {
    pub(crate) tables: BTreeMap<RegionName, PageTable>,
    /// The same at the nearest snapshot whose trees are in the store,
    pub(crate) trees: BTreeMap<RegionName, PageTable>,
    /// which is this one, or one that is not published yet.
    pub(crate) trees_of: Option<SnapshotId>,
    pub(crate) distance: Distance,
}

/// How much lies between a snapshot and the nearest one, itself or one it descends from, whose trees are in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distance {
    lists: u32,
    pages: u64,
}

impl Distance {
    /// One snapshot on, in which so many pages changed.
    pub(crate) fn on(self, changed: u64) -> Distance {
        Distance { lists: self.lists + 1, pages: self.pages + changed }
    }
}

impl Regions {
    /// What each region holds, page by page.
    pub fn tables(&self) -> &BTreeMap<RegionName, PageTable> {
        &self.tables
    }

    /// The pages of each region that are not the same in both.
    pub fn differing(&self, other: &Regions) -> BTreeMap<RegionName, PageSet> {
        let nothing = PageTable::new();
        let names: BTreeSet<&RegionName> = self.tables.keys().chain(other.tables.keys()).collect();
        let one = |name: &RegionName| {
            let [one, other] =
                [&self.tables, &other.tables].map(|tables| tables.get(name).unwrap_or(&nothing));
            (name.clone(), one.differing(other))
        };
        names.into_iter().map(one).collect()
    }

    /// What they hold after these changes, of a machine that has these regions then. Of one that became smaller the rest
    /// is gone.
    pub fn after(&self, delta: &Delta, regions: &[Region]) -> Regions {
        let mut after = Regions { tables: BTreeMap::new(), ..self.clone() };
        for region in regions {
            let mut table = self.tables.get(&region.name).cloned().unwrap_or_default();
            if let Some(changes) = delta.get(&region.name) {
                table.apply(changes);
            }
            table.truncate(region.pages());
            after.tables.insert(region.name.clone(), table);
        }
        after.distance = self.distance.on(delta.values().map(|changes| changes.len() as u64).sum());
        after
    }

    /// Whether there is much to lay over the trees.
    pub(crate) fn want_trees(&self) -> bool {
        let pages = self.tables.values().map(PageTable::len).sum::<u64>();
        self.distance.lists > MOST_LISTS || self.distance.pages > pages / LARGEST_PART
    }

    /// To be told once they are published as this snapshot.
    pub(crate) fn published(&mut self, id: SnapshotId) {
        if self.distance == Distance::default() {
            self.trees_of = Some(id);
        }
    }

    /// To be told once the trees are in a pack.
    pub(crate) fn written(&mut self) {
        self.trees = self.tables.clone();
        self.trees_of = None;
        self.distance = Distance::default();
    }

    /// The roots of their trees.
    ///
    /// # Errors
    /// A page beyond the end of its region has content.
    pub(crate) fn roots(&self, regions: &[Region]) -> Result<BTreeMap<RegionName, PageHash>, String> {
        let nothing = PageTable::new();
        let root = |region: &Region| {
            let (name, pages) = (&region.name, region.pages());
            let table = self.tables.get(name).unwrap_or(&nothing);
            match table.last() {
                Some(last) if u64::from(last) >= pages => {
                    Err(format!("page {last} of {name} has content, and it has only {pages}"))
                }
                _ => Ok((name.clone(), table.root(pages))),
            }
        };
        regions.iter().map(root).collect()
    }

    /// Fails unless they are what `snapshot` says it holds, if it does.
    pub(crate) fn check(&self, snapshot: &Snapshot) -> Result<(), String> {
        if snapshot.roots.is_empty() {
            return Ok(());
        }
        let roots = self.roots(&snapshot.draft.regions)?;
        match roots.iter().find(|(name, root)| snapshot.roots.get(*name) != Some(*root)) {
            Some((name, _)) => Err(format!("its lists do not lead to what it says {name} holds")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use watari_types::{PAGE_SIZE, RegionDelta};

    use super::*;

    #[test]
    fn trees_are_wanted_after_many_lists_or_much_change() {
        let region = Region { name: RegionName::disk(0), bytes: 1000 * PAGE_SIZE as u64 };
        let sizes = [region.clone()];
        let changed = |pages: u32, number: u8| -> Delta {
            let content = PageHash([number; 32]);
            [(region.name.clone(), (0..pages).map(|page| (page, content)).collect::<RegionDelta>())].into()
        };
        let first = Regions::default().after(&changed(1000, 1), &sizes);
        assert!(first.want_trees(), "the first of a history");
        let written = Regions { distance: Distance::default(), ..first };
        let mut now = written.clone();
        for number in 0..MOST_LISTS {
            now = now.after(&changed(u32::from(number % 5 == 0), 2 + number as u8), &sizes);
            assert!(!now.want_trees(), "{number}");
        }
        assert!(now.after(&changed(0, 0), &sizes).want_trees());
        assert!(!written.after(&changed(125, 2), &sizes).want_trees());
        assert!(written.after(&changed(126, 2), &sizes).want_trees());
    }
}
