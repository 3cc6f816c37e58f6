//! Which pages: a compressed bitmap of page indexes.

use std::fmt;

use roaring::RoaringBitmap;

/// A set of page indexes of one region. Iterates in ascending order, in time proportional to its size.
///
/// Indexes are 32 bits wide, so a region holds at most 16 TiB.
#[derive(Clone, Default, PartialEq)]
pub struct PageSet(RoaringBitmap);

impl PageSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// All pages below `pages`.
    pub fn all(pages: u32) -> Self {
        let mut set = Self::new();
        set.insert_range(0..pages);
        set
    }

    /// Adds one page; `true` if it was not there.
    pub fn insert(&mut self, page: u32) -> bool {
        self.0.insert(page)
    }

    /// Adds a run of pages.
    pub fn insert_range(&mut self, pages: std::ops::Range<u32>) {
        self.0.insert_range(pages);
    }

    /// Removes one page; `true` if it was there.
    pub fn remove(&mut self, page: u32) -> bool {
        self.0.remove(page)
    }

    /// Whether `page` is in the set.
    pub fn contains(&self, page: u32) -> bool {
        self.0.contains(page)
    }

    /// How many pages are in the set.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds every page of `other`.
    pub fn union_with(&mut self, other: &PageSet) {
        self.0 |= &other.0;
    }

    /// Removes every page of `other`.
    pub fn subtract(&mut self, other: &PageSet) {
        self.0 -= &other.0;
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// The pages that are in `range`, ascending, in time proportional to how many these are.
    pub fn within(&self, range: std::ops::Range<u32>) -> impl Iterator<Item = u32> + '_ {
        self.0.range(range)
    }

    /// The pages as maximal runs of neighbours, ascending.
    pub fn runs(&self) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
        let mut pages = self.0.iter().peekable();
        std::iter::from_fn(move || {
            let start = pages.next()?;
            let mut end = start + 1;
            while pages.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(start..end)
        })
    }
}

impl FromIterator<u32> for PageSet {
    fn from_iter<I: IntoIterator<Item = u32>>(pages: I) -> Self {
        PageSet(pages.into_iter().collect())
    }
}

impl fmt::Debug for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs().take(8)).finish()?;
        write!(f, "({} pages)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_neighbours_and_keep_order() {
        let set: PageSet = [5, 1, 2, 3, 9].into_iter().collect();
        assert_eq!(set.runs().collect::<Vec<_>>(), [1..4, 5..6, 9..10]);
        assert_eq!(set.len(), 5);
    }

    #[test]
    fn what_is_within_a_range_begins_and_ends_with_it() {
        let set: PageSet = [1, 5, 6, 70_000].into_iter().collect();
        assert_eq!(set.within(5..70_000).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(set.within(0..0).count() + set.within(2..5).count(), 0);
        assert_eq!(set.within(6..u32::MAX).collect::<Vec<_>>(), [6, 70_000]);
    }

    #[test]
    fn subtracting_what_was_added_leaves_what_was_there() {
        let mut set = PageSet::all(10);
        let some: PageSet = [3, 4].into_iter().collect();
        set.subtract(&some);
        assert_eq!(set.runs().collect::<Vec<_>>(), [0..3, 5..10]);
        set.union_with(&some);
        assert_eq!(set, PageSet::all(10));
    }
}
