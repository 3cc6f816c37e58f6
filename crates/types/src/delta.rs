//! What changed: pages and their new content's names, region by region.

use std::collections::BTreeMap;

use crate::{PageHash, RegionName};

/// The changes of one region: page indexes, ascending and unique, each with the name of its new content.
/// A page that became zero (freed, discarded or overwritten with zeros) is there with
/// [`PageHash::ZERO_PAGE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionDelta {
    pages: Vec<(u32, PageHash)>,
}

impl RegionDelta {
    /// How many pages changed.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[(u32, PageHash)] {
        &self.pages
    }

    /// The changed pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, PageHash)> + '_ {
        self.pages.iter().copied()
    }
}

impl FromIterator<(u32, PageHash)> for RegionDelta {
    /// Of several entries for one page the last one counts.
    fn from_iter<I: IntoIterator<Item = (u32, PageHash)>>(pages: I) -> Self {
        let mut pages: Vec<_> = pages.into_iter().collect();
        if !pages.is_sorted_by(|a, b| a.0 < b.0) {
            pages.reverse();
            pages.sort_by_key(|(page, _)| *page);
            pages.dedup_by_key(|(page, _)| *page);
        }
        RegionDelta { pages }
    }
}

/// The changes of a whole machine between two snapshots.
pub type Delta = BTreeMap<RegionName, RegionDelta>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_for_a_page_counts() {
        let (a, b) = (PageHash([1; 32]), PageHash([2; 32]));
        let delta: RegionDelta = [(7, a), (3, a), (7, b)].into_iter().collect();
        assert_eq!(delta.iter().collect::<Vec<_>>(), [(3, a), (7, b)]);
    }
}
