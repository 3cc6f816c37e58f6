//! Several stores on one folder against a map.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use watari_store::Store;
use watari_types::{Generation, MachineId, PAGE_SIZE, RegionName, SnapshotId};

use crate::support::*;

#[derive(Clone, Debug)]
enum Step {
    /// Put pages with these numbers into a pack.
    Pack {
        store: usize,
        pages: Vec<u32>,
    },
    /// Publish a snapshot with these changes (page index, number of the content) on an earlier one.
    Commit {
        store: usize,
        parent: prop::sample::Index,
        changes: Vec<(u32, u32)>,
    },
    /// Begin a pack and let go of it.
    Abandon {
        store: usize,
        pages: Vec<u32>,
    },
    Refresh {
        store: usize,
    },
    Reopen {
        store: usize,
    },
    Read {
        store: usize,
        page: u32,
    },
}

const STORES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let store = 0..STORES;
    let number = || 0..400_u32;
    let pages = || prop::collection::vec(number(), 0..150);
    let changes = prop::collection::vec((0..DISK_PAGES, number()), 0..150);
    let step = prop_oneof![
        (store.clone(), pages()).prop_map(|(store, pages)| Step::Pack { store, pages }),
        (store.clone(), any::<prop::sample::Index>(), changes)
            .prop_map(|(store, parent, changes)| Step::Commit { store, parent, changes }),
        (store.clone(), pages()).prop_map(|(store, pages)| Step::Abandon { store, pages }),
        store.clone().prop_map(|store| Step::Refresh { store }),
        store.clone().prop_map(|store| Step::Reopen { store }),
        (store, number()).prop_map(|(store, page)| Step::Read { store, page }),
    ];
    prop::collection::vec(step, 1..25)
}

/// What the store should hold.
#[derive(Default)]
struct Model {
    pages: BTreeSet<u32>,
    /// The snapshots, each with its disk: page index and number of the content, zero pages left out.
    snapshots: Vec<(SnapshotId, BTreeMap<u32, u32>)>,
}

impl Model {
    fn put(&mut self, store: &Store, pages: &[u32]) {
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        let mut new = 0;
        for number in pages {
            let is_new = *number != 0 && self.pages.insert(*number);
            // A page like it may be in the store, itself or as a change of a third, or in this pack, or nowhere.
            let put = match number % 3 {
                0 => pack.put(hash(*number), &page(*number)),
                near => pack.put_changed(hash(*number), &page(*number), &hash(number ^ near)),
            };
            assert_eq!(put.unwrap(), is_new, "page {number}");
            new += u64::from(is_new);
        }
        assert_eq!(pack.finish().unwrap().pages, new);
    }

    fn commit(&mut self, store: &Store, parent: prop::sample::Index, changes: &[(u32, u32)]) {
        let parent = (!self.snapshots.is_empty()).then(|| parent.get(&self.snapshots).clone());
        let (parent, mut disk) = parent.map_or((None, BTreeMap::new()), |(id, disk)| (Some(id), disk));
        self.put(store, &changes.iter().map(|(_, number)| *number).collect::<Vec<_>>());
        let generation = self.snapshots.len() as u64 + 1;
        let id = commit(store, generation, parent, changes);
        disk.extend(changes.iter().copied());
        disk.retain(|_, number| *number != 0);
        self.snapshots.push((id, disk));
    }

    fn read(&self, store: &Store, number: u32) {
        let mut read = [0xFF; PAGE_SIZE];
        let found = store.read_page(&hash(number), &mut read);
        assert_eq!(found.is_ok(), number == 0 || self.pages.contains(&number), "page {number}: {found:?}");
        if found.is_ok() {
            assert_eq!(read, page(number));
        }
    }

    fn check(&self, store: &Store) {
        let listed: Vec<_> = (1..).map(Generation).zip(self.snapshots.iter().map(|(id, _)| *id)).collect();
        assert_eq!(store.refs(MACHINE).list().unwrap(), listed);
        for (id, disk) in &self.snapshots {
            let table = &store.page_tables(*id).unwrap()[&RegionName::disk(0)];
            let expected: Vec<_> = disk.iter().map(|(index, number)| (*index, hash(*number))).collect();
            assert_eq!(table.iter().collect::<Vec<_>>(), expected);
            for (index, content) in contents(store, table) {
                assert!(content == page(disk[&index]), "page {index} is wrong");
            }
        }
        for number in 0..400 {
            assert_eq!(store.contains(&hash(number)), number == 0 || self.pages.contains(&number));
        }
        let report = store.verify(None, &|_| ()).unwrap();
        assert_eq!(report.damaged, []);
        assert!(report.pages_checked >= self.pages.len() as u64, "pages, and nodes of trees");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn several_stores_on_one_folder_agree_with_a_map(steps in steps()) {
        let (folder, first) = store();
        let root = folder.path().join("store");
        let mut stores = vec![first];
        stores.resize_with(STORES, || Store::open(&root).unwrap());
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Pack { store, pages } => model.put(&stores[store], &pages),
                Step::Commit { store, parent, changes } => model.commit(&stores[store], parent, &changes),
                Step::Abandon { store, pages } => {
                    let mut pack = stores[store].new_pack(&stores[store].lease().unwrap()).unwrap();
                    for number in pages {
                        pack.put(hash(number), &page(number)).unwrap();
                    }
                }
                Step::Refresh { store } => stores[store].refresh().unwrap(),
                Step::Reopen { store } => stores[store] = Store::open(&root).unwrap(),
                Step::Read { store, page } => model.read(&stores[store], page),
            }
        }
        for store in &stores {
            store.refresh().unwrap();
            model.check(store);
        }
        prop_assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn machines_that_are_captured_at_once_do_not_disturb_each_other() {
    let (folder, shared) = store();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        for machine in 0..4_u32 {
            // Two threads share a store, the others have their own, as processes would.
            let store = if machine < 2 { shared.clone() } else { Store::open(&root).unwrap() };
            scope.spawn(move || {
                let refs = store.refs(MachineId([machine as u8; 16]));
                let mut parent = None;
                for generation in 1..=8_u32 {
                    let changes: Vec<_> =
                        (0..100).map(|page| (page, 1 + (page * generation + machine * 30) % 500)).collect();
                    let id = publish(&store, u64::from(generation), parent, &changes);
                    refs.add(Generation(u64::from(generation)), id, &store.lease().unwrap()).unwrap();
                    parent = Some(id);
                }
            });
        }
    });
    shared.refresh().unwrap();
    assert_eq!(shared.machines().unwrap().len(), 4);
    for machine in 0..4_u32 {
        let (generation, id) = *shared.refs(MachineId([machine as u8; 16])).list().unwrap().last().unwrap();
        assert_eq!(generation, Generation(8));
        let table = &shared.page_tables(id).unwrap()[&RegionName::disk(0)];
        for (index, content) in contents(&shared, table) {
            assert!(
                content == page(1 + (index * 8 + machine * 30) % 500),
                "page {index} of machine {machine}"
            );
        }
    }
    assert_eq!(damage(&shared), [""; 0]);
}
