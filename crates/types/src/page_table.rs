//! What a whole region holds: for each page the name of its content, in a tree whose nodes are pages themselves.
//!
//! ```text
//!   level 2              [128 names]           of the nodes of level 1: 2,097,152 pages
//!                        /
//!   level 1      [128 names] …                 of the nodes of level 0: 16,384 pages
//!                /
//!   level 0   [128 names] [128 names] …        of the region's pages: leaf n has those from 128 n on
//! ```
//! A node is 4,096 bytes: 128 names of 32 bytes, with zeros for the name of the zero page. So a node is a page, named by
//! its hash as every page is, and the node of a part that is all zeros is the zero page. A region has as many levels as it
//! takes for one node to stand above all its pages: the name of that node, its *root*, stands for all that the region
//! holds, and two regions differ just where the names on the way down do.

use std::ops::Range;
use std::sync::Arc;

use crate::{PAGE_SIZE, Page, PageHash, PageSet, RegionDelta};

/// Names in a node.
pub const NAMES_PER_NODE: u32 = (PAGE_SIZE / NAME_BYTES) as u32;

const NAME_BYTES: usize = 32;
/// So that a node's place in the one above it is a few bits of the page's number.
const BITS: u32 = NAMES_PER_NODE.trailing_zeros();
/// Levels of a table in memory: enough for all page numbers there are.
const LEVELS: u32 = u32::BITS.div_ceil(BITS);

/// How many levels the tree of a region of `pages` pages has: at least one.
pub fn levels_for(pages: u64) -> u32 {
    (1..LEVELS).find(|levels| pages <= 1 << (levels * BITS)).unwrap_or(LEVELS)
}

/// The names in a node.
pub fn names_in(node: &Page) -> impl ExactSizeIterator<Item = PageHash> + '_ {
    node.as_chunks()
        .0
        .iter()
        .map(|name| if *name == [0; NAME_BYTES] { PageHash::ZERO_PAGE } else { PageHash(*name) })
}

/// The content of one region, page by page. Every page not set is the zero page, and runs of zero pages take
/// no memory, so a sparse region costs what it holds: 32 bytes per page that is not zero, in whole nodes.
///
/// A clone costs nothing: what is the same in two tables that come of each other is there once.
#[derive(Clone, Default)]
pub struct PageTable {
    top: Option<Arc<Node>>,
}

/// Never without a page that is not zero.
#[derive(Clone)]
struct Node {
    names: Page,
    /// The nodes that have these names; none above pages.
    below: Box<[Option<Arc<Node>>]>,
    /// Pages under it that are not zero.
    pages: u64,
}

/// A node that one table has and another one has not.
pub struct NewNode<'a> {
    /// Its name.
    pub name: PageHash,
    /// Its content.
    pub page: &'a Page,
    /// The name of what the other table has in its place.
    pub former: Option<PageHash>,
}

impl Node {
    fn empty(level: u32) -> Node {
        let below = if level == 0 { 0 } else { NAMES_PER_NODE as usize };
        Node { names: [0; PAGE_SIZE], below: vec![None; below].into(), pages: 0 }
    }

    fn name(&self, slot: u32) -> PageHash {
        match self.names.as_chunks::<NAME_BYTES>().0[slot as usize] {
            name if name == [0; NAME_BYTES] => PageHash::ZERO_PAGE,
            name => PageHash(name),
        }
    }

    fn set_name(&mut self, slot: u32, name: PageHash) {
        let name = if name.is_zero_page() { [0; NAME_BYTES] } else { name.0 };
        self.names.as_chunks_mut::<NAME_BYTES>().0[slot as usize] = name;
    }

    /// Lays changes, ascending and all of pages under this node, over it.
    fn apply(&mut self, level: u32, changes: &[(u32, PageHash)]) {
        if level == 0 {
            for (page, name) in changes {
                let slot = page % NAMES_PER_NODE;
                self.pages -= u64::from(!self.name(slot).is_zero_page());
                self.pages += u64::from(!name.is_zero_page());
                self.set_name(slot, *name);
            }
            return;
        }
        let child_of = |page: u32| page >> (level * BITS);
        for changes in changes.chunk_by(|a, b| child_of(a.0) == child_of(b.0)) {
            let slot = child_of(changes[0].0) % NAMES_PER_NODE;
            let child = &mut self.below[slot as usize];
            self.pages -= child.as_ref().map_or(0, |child| child.pages);
            apply(child, level - 1, changes);
            self.pages += child.as_ref().map_or(0, |child| child.pages);
            let name = name_of(child.as_ref());
            self.set_name(slot, name);
        }
    }
}

fn apply(place: &mut Option<Arc<Node>>, level: u32, changes: &[(u32, PageHash)]) {
    if place.is_none() && changes.iter().all(|(_, name)| name.is_zero_page()) {
        return;
    }
    let node = Arc::make_mut(place.get_or_insert_with(|| Arc::new(Node::empty(level))));
    node.apply(level, changes);
    if node.pages == 0 {
        *place = None;
    }
}

fn name_of(node: Option<&Arc<Node>>) -> PageHash {
    node.map_or(PageHash::ZERO_PAGE, |node| PageHash::of(&node.names))
}

impl PageTable {
    /// The table of a region that is all zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the content of `page`.
    pub fn get(&self, page: u32) -> PageHash {
        let mut node = self.top.as_ref();
        for level in (1..LEVELS).rev() {
            let slot = (page >> (level * BITS)) % NAMES_PER_NODE;
            node = node.and_then(|node| node.below[slot as usize].as_ref());
        }
        node.map_or(PageHash::ZERO_PAGE, |leaf| leaf.name(page % NAMES_PER_NODE))
    }

    /// Lays changes over the table. Takes time in proportion to them.
    pub fn apply(&mut self, changes: &RegionDelta) {
        apply(&mut self.top, LEVELS - 1, changes.as_slice());
    }

    /// Makes all pages from `pages` on zero.
    pub fn truncate(&mut self, pages: u64) {
        if self.last().is_some_and(|last| u64::from(last) >= pages) {
            let beyond = self.iter().filter(|(page, _)| u64::from(*page) >= pages);
            self.apply(&beyond.map(|(page, _)| (page, PageHash::ZERO_PAGE)).collect());
        }
    }

    /// The name that stands for all the content of a region of `pages` pages.
    pub fn root(&self, pages: u64) -> PageHash {
        name_of(self.top_of(levels_for(pages)))
    }

    /// The node above all pages of a tree of so many levels.
    fn top_of(&self, levels: u32) -> Option<&Arc<Node>> {
        (levels..LEVELS).try_fold(self.top.as_ref()?, |node, _| node.below[0].as_ref())
    }

    /// The nodes of this table, as that of a region of `pages` pages, which `former` has not.
    pub fn new_nodes<'a>(&'a self, former: &'a PageTable, pages: u64) -> Vec<NewNode<'a>> {
        let levels = levels_for(pages);
        let (now, before) = (self.top_of(levels), former.top_of(levels));
        let mut nodes = Vec::new();
        add_new_nodes((name_of(now), now), (name_of(before), before), &mut nodes);
        nodes
    }

    /// The pages that are not the same in both, in time proportional to how much they differ.
    pub fn differing(&self, other: &PageTable) -> PageSet {
        let mut pages = PageSet::new();
        add_differing(self.top.as_deref(), other.top.as_deref(), 0, LEVELS - 1, &mut pages);
        pages
    }

    /// The pages that are not zero, ascending, with their content's name.
    pub fn iter(&self) -> impl Iterator<Item = (u32, PageHash)> + '_ {
        self.leaves(0).flat_map(|(first, leaf)| {
            (first..=u32::MAX).zip(names_in(&leaf.names)).filter(|(_, name)| !name.is_zero_page())
        })
    }

    /// The runs of pages within `within` that are not zero, ascending.
    pub fn runs(&self, within: Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for (first, leaf) in self.leaves(within.start).take_while(|(first, _)| *first < within.end) {
            let pages =
                (first..=u32::MAX).zip(names_in(&leaf.names)).filter(|(_, name)| !name.is_zero_page());
            for (page, _) in pages.filter(|(page, _)| within.contains(page)) {
                match runs.last_mut() {
                    Some(run) if run.end == page => run.end += 1,
                    _ => runs.push(page..page + 1),
                }
            }
        }
        runs
    }

    /// How many pages are not zero.
    pub fn len(&self) -> u64 {
        self.top.as_ref().map_or(0, |top| top.pages)
    }

    /// Whether every page is zero.
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// The last page that is not zero.
    pub fn last(&self) -> Option<u32> {
        let (mut node, mut index) = (self.top.as_deref()?, 0);
        loop {
            let slot = (0..NAMES_PER_NODE).rev().find(|slot| !node.name(*slot).is_zero_page())?;
            index = (index << BITS) + slot;
            match node.below.get(slot as usize) {
                Some(child) => node = child.as_deref()?,
                None => return Some(index),
            }
        }
    }

    /// The pages that are not zero.
    pub fn pages(&self) -> PageSet {
        self.iter().map(|(page, _)| page).collect()
    }

    /// The leaves that have a page from `from` on, ascending, each with its first page.
    fn leaves(&self, from: u32) -> Leaves<'_> {
        Leaves { from: u64::from(from), way: self.top.iter().map(|top| (&**top, 0, 0)).collect() }
    }
}

fn add_new_nodes<'a>(
    (name, node): (PageHash, Option<&'a Arc<Node>>),
    (former_name, former): (PageHash, Option<&'a Arc<Node>>),
    into: &mut Vec<NewNode<'a>>,
) {
    let Some(node) = node.filter(|_| name != former_name) else { return };
    for (slot, child) in (0..).zip(&node.below) {
        let before = former.and_then(|former| former.below[slot as usize].as_ref());
        let former_name = former.map_or(PageHash::ZERO_PAGE, |former| former.name(slot));
        add_new_nodes((node.name(slot), child.as_ref()), (former_name, before), into);
    }
    into.push(NewNode { name, page: &node.names, former: former.map(|_| former_name) });
}

fn add_differing(one: Option<&Node>, other: Option<&Node>, index: u32, level: u32, into: &mut PageSet) {
    let name = |node: Option<&Node>, slot| node.map_or(PageHash::ZERO_PAGE, |node| node.name(slot));
    for slot in (0..NAMES_PER_NODE).filter(|slot| name(one, *slot) != name(other, *slot)) {
        let index = (index << BITS) + slot;
        if level == 0 {
            into.insert(index);
            continue;
        }
        let [one, other] = [one, other].map(|node| node?.below[slot as usize].as_deref());
        add_differing(one, other, index, level - 1, into);
    }
}

/// A walk over the leaves of a table.
struct Leaves<'a> {
    from: u64,
    /// The nodes from the top down to where the walk is: each with its first page, and the slot that is next.
    way: Vec<(&'a Node, u64, u32)>,
}

impl<'a> Iterator for Leaves<'a> {
    type Item = (u32, &'a Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = LEVELS.checked_sub(self.way.len() as u32)?;
            let (node, first, slot) = self.way.last_mut()?;
            if level == 0 {
                let leaf = (*first as u32, *node);
                self.way.pop();
                return Some(leaf);
            }
            let (span, at) = (1_u64 << (level * BITS), *slot);
            if at == NAMES_PER_NODE {
                self.way.pop();
                continue;
            }
            *slot += 1;
            let first = *first + u64::from(at) * span;
            if first + span > self.from {
                let child = node.below[at as usize].as_deref();
                self.way.extend(child.map(|child| (child, first, 0)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn hash(number: u32) -> PageHash {
        PageHash(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn table(pages: &[(u32, PageHash)]) -> PageTable {
        let mut table = PageTable::new();
        table.apply(&pages.iter().copied().collect());
        table
    }

    #[test]
    fn a_table_holds_what_was_last_set_and_forgets_zero_pages() {
        let (a, b, zero) = (hash(1), hash(2), PageHash::ZERO_PAGE);
        let mut table = table(&[(3, a), (70_000, b)]);
        table.apply(&[(3, b), (9, zero)].into_iter().collect());
        assert_eq!(table.iter().collect::<Vec<_>>(), [(3, b), (70_000, b)]);
        assert_eq!((table.get(3), table.get(4)), (b, zero));
        table.apply(&[(4, a)].into_iter().collect());
        assert_eq!(table.runs(0..80_000), [3..5, 70_000..70_001]);
        assert_eq!(table.runs(4..70_000).iter().cloned().flatten().collect::<Vec<_>>(), [4]);
        assert_eq!(table.runs(5..70_000), []);
        table.apply(&[(127, a), (128, b), (u32::MAX, a)].into_iter().collect());
        assert_eq!(table.runs(100..u32::MAX), [127..129, 70_000..70_001]);
        assert_eq!((table.get(u32::MAX), table.last(), table.len()), (a, Some(u32::MAX), 6));
        table.truncate(1 << 32);
        table.truncate(128);
        assert_eq!((table.last(), table.len()), (Some(127), 3));
        table.apply(&table.pages().iter().map(|page| (page, zero)).collect());
        assert!(table.is_empty());
        assert_eq!((table.len(), table.last(), table.iter().count()), (0, None, 0));
    }

    #[test]
    fn a_region_has_as_many_levels_as_its_pages_need() {
        let levels = [0, 1, 128, 129, 16_384, 16_385, 1 << 21, 1 << 28, 1 << 32].map(levels_for);
        assert_eq!(levels, [1, 1, 1, 2, 2, 3, 3, 4, 5]);
    }

    /// The root as its definition has it: from all leaves up.
    fn root_from_scratch(table: &PageTable, pages: u64) -> PageHash {
        let mut names: BTreeMap<u32, PageHash> = table.iter().collect();
        for _ in 0..levels_for(pages) {
            let mut nodes: BTreeMap<u32, Page> = BTreeMap::new();
            for (index, name) in names {
                let at = (index % 128) as usize * 32;
                nodes.entry(index / 128).or_insert([0; PAGE_SIZE])[at..at + 32].copy_from_slice(&name.0);
            }
            names = nodes.into_iter().map(|(index, node)| (index, PageHash::of(&node))).collect();
        }
        names.get(&0).copied().unwrap_or(PageHash::ZERO_PAGE)
    }

    /// The nodes one comes by from the root on down, as a reader of the store does.
    fn pages_below(root: PageHash, pages: u64, nodes: &BTreeMap<PageHash, Page>) -> Vec<(u32, PageHash)> {
        let mut names = vec![(0, root)];
        for _ in 0..levels_for(pages) {
            let of_node = |(index, name): (u32, PageHash)| {
                let node = nodes.get(&name).copied().unwrap_or([0; PAGE_SIZE]);
                (index * 128..).zip(names_in(&node).collect::<Vec<_>>())
            };
            names = names.into_iter().flat_map(of_node).filter(|(_, name)| !name.is_zero_page()).collect();
        }
        names
    }

    #[test]
    fn the_root_and_the_nodes_are_the_same_however_a_table_came_about() {
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        for pages in [100, 10_000, 1_000_000] {
            let (mut now, mut nodes) = (PageTable::new(), BTreeMap::new());
            for round in 0..100 {
                let before = now.clone();
                let changes: RegionDelta = (0..next() % 40)
                    .map(|_| {
                        let page = if next() % 3 == 0 { next() % pages } else { next() % pages.min(600) };
                        (page, if next() % 2 == 0 { hash(next() % 9) } else { PageHash::ZERO_PAGE })
                    })
                    .collect();
                now.apply(&changes);
                let (wide, kept) = (u64::from(pages), before.root(u64::from(pages)));
                let root = now.root(wide);
                assert_eq!(root, root_from_scratch(&now, wide), "{pages} pages, round {round}");
                assert_eq!(before.root(wide), kept, "a clone is not touched");
                let expected: PageSet = changes
                    .iter()
                    .filter(|(page, name)| before.get(*page) != *name)
                    .map(|(page, _)| page)
                    .collect();
                assert_eq!(now.differing(&before), expected);
                assert_eq!(before.differing(&now), expected);
                for node in now.new_nodes(&before, wide) {
                    assert_eq!(PageHash::of(node.page), node.name);
                    assert!(
                        node.former.is_none_or(|former| nodes.contains_key(&former) && former != node.name)
                    );
                    nodes.insert(node.name, *node.page);
                }
                assert_eq!(pages_below(root, wide, &nodes), now.iter().collect::<Vec<_>>());
                assert_eq!(now.len(), now.iter().count() as u64);
            }
            let anew = table(&now.iter().collect::<Vec<_>>());
            assert_eq!(anew.root(u64::from(pages)), now.root(u64::from(pages)));
            assert!(anew.differing(&now).is_empty());
        }
    }
}
