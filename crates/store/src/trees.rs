//! Page tables as they lie in packs: trees of pages, read from the root down.
//!
//! Nothing that a tree says is believed before its node has been hashed: the name of the root, which is in a signed
//! manifest, vouches for every name below.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use watari_types::{
    NAMES_PER_NODE, PAGE_SIZE, Page, PageHash, PageTable, RegionDelta, RegionName, levels_for, names_in,
};

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Leaves that are read at a time, so that a table of any size takes little memory besides itself.
const LEAVES: usize = 1024;

impl Store {
    /// Whether the trees of all regions are there.
    pub(crate) fn has_trees(&self, snapshot: &Snapshot) -> bool {
        !snapshot.roots.is_empty()
            && snapshot.roots.values().all(|root| root.is_zero_page() || self.find(root).is_some())
    }

    /// What the trees of all regions say.
    pub(crate) fn read_trees(&self, snapshot: &Snapshot) -> Result<BTreeMap<RegionName, PageTable>, Error> {
        let mut tables = BTreeMap::new();
        for region in &snapshot.draft.regions {
            let root = snapshot.roots.get(&region.name).copied().unwrap_or(PageHash::ZERO_PAGE);
            tables.insert(region.name.clone(), self.read_tree(root, region.pages())?);
        }
        Ok(tables)
    }

    fn read_tree(&self, root: PageHash, pages: u64) -> Result<PageTable, Error> {
        let mut table = PageTable::new();
        let mut nodes = vec![(0, root)];
        for level in (1..levels_for(pages)).rev() {
            nodes = self.below(&nodes, level, pages)?;
        }
        for leaves in nodes.chunks(LEAVES) {
            table.apply(&self.below(leaves, 0, pages)?.into_iter().collect::<RegionDelta>());
        }
        Ok(table)
    }

    /// The names in these nodes of a level, each node with its number, but for those of zero pages.
    fn below(
        &self,
        nodes: &[(u32, PageHash)],
        level: u32,
        pages: u64,
    ) -> Result<Vec<(u32, PageHash)>, Error> {
        let contents = self.read_nodes(nodes)?;
        // So many names there are on this level of a region of that size.
        let end = pages.div_ceil(1 << (level * NAMES_PER_NODE.trailing_zeros()));
        let mut below = Vec::with_capacity(nodes.len() * NAMES_PER_NODE as usize);
        for ((index, name), node) in nodes.iter().zip(&contents) {
            let first = u64::from(*index) * u64::from(NAMES_PER_NODE);
            for (index, named) in (first..).zip(names_in(node)).filter(|(_, named)| !named.is_zero_page()) {
                match u32::try_from(index) {
                    Ok(page) if index < end => below.push((page, named)),
                    _ => return Err(self.broken_node(name, "names what is beyond the end of its region")),
                }
            }
        }
        Ok(below)
    }

    /// Reads nodes and checks that they are what they are named after.
    fn read_nodes(&self, nodes: &[(u32, PageHash)]) -> Result<Vec<Page>, Error> {
        let contents = Mutex::new(vec![[0; PAGE_SIZE]; nodes.len()]);
        let names = (0..).zip(nodes.iter().map(|(_, name)| *name));
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(4);
        self.read_pages(names, threads, &|first, bytes| {
            for (content, node) in contents.lock()[first as usize..].iter_mut().zip(bytes.as_chunks().0) {
                *content = *node;
            }
            Ok(())
        })?;
        let contents = contents.into_inner();
        match nodes.iter().zip(PageHash::of_all(&contents)).find(|((_, name), found)| found != name) {
            Some(((_, name), _)) => Err(self.broken_node(name, "is not what it is named after")),
            None => Ok(contents),
        }
    }

    fn broken_node(&self, name: &PageHash, what: &str) -> Error {
        let pack = self.find(name).map_or_else(|| self.layout().packs(), |place| place.pack.path.clone());
        Error::damaged(&pack, format!("page {name}, which tells of others, {what}"))
    }
}
