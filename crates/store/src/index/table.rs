//! Where pages are, by the beginnings of their names, in one piece of memory.
//!
//! Names are hashes, so from the beginning of a name follows about where in a sorted table it stands: its *home*. An
//! entry is at its home or, if others are there, behind it; entries are in the order of their names, and from an entry's
//! home to the entry no slot is free. So it takes a look at a few neighbouring slots to find a page, or to see that it
//! is not there, and an entry is added by moving on those behind it, up to the next free slot.

use super::slots::{FREE, Slot, Slots};

/// When a table is made, five slots for four entries; when there are eight for seven it is made anew.
const ROOM: (usize, usize) = (5, 4);
const FULL: (usize, usize) = (8, 7);
/// Slots behind the last home, unless that turns out to be too few.
const TAIL: usize = 1024;

/// A page whose name begins like this may be at this position of that pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) beginning: u64,
    pub(super) pack: u32,
    pub(super) position: u32,
}

impl Entry {
    fn slot(self) -> Slot {
        [self.beginning, (u64::from(self.pack) + 1) << 32 | u64::from(self.position)]
    }

    fn of([beginning, place]: Slot) -> Option<Entry> {
        let pack = ((place >> 32) as u32).checked_sub(1)?;
        Some(Entry { beginning, pack, position: place as u32 })
    }
}

pub(super) struct Table {
    slots: Slots,
    homes: usize,
    len: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table::with_room(0)
    }
}

impl Table {
    /// An empty one that has room for so many.
    pub(super) fn with_room(entries: usize) -> Table {
        Table::with_tail(entries, TAIL)
    }

    fn with_tail(entries: usize, tail: usize) -> Table {
        let homes = entries * ROOM.0 / ROOM.1;
        Table { slots: Slots::free(homes + tail), homes, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where an entry is if no other is in its way.
    fn home(&self, beginning: u64) -> usize {
        ((u128::from(beginning) * self.homes as u128) >> 64) as usize
    }

    /// All entries of pages whose names begin like this, those added last at the end.
    pub(super) fn find(&self, beginning: u64) -> impl Iterator<Item = Entry> + '_ {
        let from_home = self.slots[self.home(beginning)..].iter().map_while(|slot| Entry::of(*slot));
        from_home
            .skip_while(move |entry| entry.beginning < beginning)
            .take_while(move |entry| entry.beginning == beginning)
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.slots.iter().filter_map(|slot| Entry::of(*slot))
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let entries = self.len + more;
        if entries * FULL.0 > self.homes * FULL.1 {
            self.make_anew(entries, self.slots.len() - self.homes);
        }
    }

    /// Behind which slot the last entry is then.
    fn make_anew(&mut self, entries: usize, tail: usize) -> usize {
        let mut anew = Table::with_tail(entries, tail);
        let end = self.iter().fold(0, |next, entry| anew.append(next, entry));
        *self = anew;
        end
    }

    /// Where names come after all others because they are no hashes, the tail may be too short.
    fn lengthen(&mut self) -> usize {
        self.make_anew(self.len + 1, 2 * (self.slots.len() - self.homes))
    }

    /// Adds one for which there is room.
    pub(super) fn insert(&mut self, entry: Entry) {
        let home = self.home(entry.beginning);
        let goes_before = |slot: &Slot| Entry::of(*slot).is_some_and(|e| e.beginning <= entry.beginning);
        let at = home + self.slots[home..].iter().take_while(|slot| goes_before(slot)).count();
        match self.slots[at..].iter().position(|slot| *slot == FREE) {
            Some(run) => {
                self.slots.copy_within(at..at + run, at + 1);
                self.slots[at] = entry.slot();
                self.len += 1;
            }
            None => {
                self.lengthen();
                self.insert(entry);
            }
        }
    }

    /// Adds the one that follows all there are, not before the slot `next`; behind which slot it is.
    pub(super) fn append(&mut self, next: usize, entry: Entry) -> usize {
        let at = self.home(entry.beginning).max(next);
        match self.slots.get_mut(at) {
            Some(slot) => {
                *slot = entry.slot();
                self.len += 1;
                at + 1
            }
            None => {
                let end = self.lengthen();
                self.append(end, entry)
            }
        }
    }

    /// Replaces each by what `keep` makes of it, which must begin alike.
    pub(super) fn retain(&mut self, keep: impl Fn(Entry) -> Option<Entry>) {
        self.len = 0;
        let mut next = 0;
        for at in 0..self.slots.len() {
            let slot = std::mem::replace(&mut self.slots[at], FREE);
            if let Some(entry) = Entry::of(slot).and_then(&keep) {
                // Never behind where it was.
                next = self.append(next, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u64>),
        Remove(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Many alike, many in one place, some at the very end, and some that are anywhere.
        let beginning = prop_oneof![0..8_u64, (0..1000_u64).prop_map(|low| u64::MAX - low), any::<u64>()];
        let insert = prop::collection::vec(beginning, 0..300).prop_map(Step::Insert);
        prop::collection::vec(prop_oneof![3 => insert, 1 => (0..8_u32).prop_map(Step::Remove)], 1..12)
    }

    fn check(table: &Table, model: &BTreeMap<u64, Vec<u32>>) {
        assert_eq!(table.len(), model.values().map(Vec::len).sum::<usize>());
        let in_order: Vec<(u64, u32)> = table.iter().map(|e| (e.beginning, e.position)).collect();
        let expected = model.iter().flat_map(|(name, places)| places.iter().map(|place| (*name, *place)));
        assert_eq!(in_order, expected.collect::<Vec<_>>());
        for name in model.keys().copied().chain([0, 9, u64::MAX / 2, u64::MAX]) {
            let found: Vec<u32> = table.find(name).map(|entry| entry.position).collect();
            assert_eq!(found, model.get(&name).cloned().unwrap_or_default());
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in steps()) {
            let (mut table, mut model) = (Table::default(), BTreeMap::<u64, Vec<u32>>::new());
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Insert(names) => {
                        table.reserve(names.len());
                        for beginning in names {
                            table.insert(Entry { beginning, pack: number % 8, position: number });
                            model.entry(beginning).or_default().push(number);
                            number += 1;
                        }
                    }
                    Step::Remove(pack) => {
                        table.retain(|entry| (entry.pack != pack).then_some(entry));
                        model.values_mut().for_each(|places| places.retain(|number| number % 8 != pack));
                        model.retain(|_, places| !places.is_empty());
                    }
                }
                check(&table, &model);
            }
        }
    }

    #[test]
    fn a_page_takes_at_most_21_bytes_and_is_near_its_home() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut table = Table::default();
        let (mut most, mut farthest) = (0.0_f64, 0);
        for count in 1..=300_000_u32 {
            table.reserve(1);
            table.insert(Entry { beginning: random.u64(..), pack: 0, position: count });
            if count % 1000 == 0 && count > 100_000 {
                most = most.max(size_of_val(&table.slots[..]) as f64 / f64::from(count));
            }
        }
        for (at, slot) in table.slots.iter().enumerate() {
            let Some(entry) = Entry::of(*slot) else { continue };
            farthest = farthest.max(at - table.home(entry.beginning));
        }
        assert!(most < 21.0, "{most} bytes");
        assert!(farthest < 200, "{farthest} slots");
    }
}
