//! Garbage is removed and packs are merged, and everything that a ref reaches stays what it was.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use watari_store::{Collected, Collecting, Error, Store};
use watari_types::{Generation, MachineId, PAGE_SIZE, PageHash, RegionName, SnapshotId};

use crate::support::*;

fn collect(store: &Store) -> Collected {
    let done = store.collect(&collecting(Duration::from_secs(60))).unwrap();
    assert!(!done.is_held_back && done.left.is_empty(), "{done:?}");
    assert!(condemned(store).is_empty());
    done
}

/// Collects impatiently, and begins something in the middle of it that holds it back.
fn collect_during<T>(store: &Store, begin: impl Fn() -> T) -> (T, Collected) {
    let begun = RefCell::new(None);
    let begin = || {
        begun.borrow_mut().get_or_insert_with(&begin);
        Vec::new()
    };
    let done = store.collect(&Collecting { also: &begin, ..collecting(Duration::ZERO) }).unwrap();
    (begun.into_inner().unwrap(), done)
}

fn condemned(store: &Store) -> Vec<fs::DirEntry> {
    fs::read_dir(store.folder().join("condemned")).unwrap().map(Result::unwrap).collect()
}

fn files(store: &Store, folder: &str) -> usize {
    fs::read_dir(store.folder().join(folder)).unwrap().count()
}

fn disk_of(store: &Store, id: SnapshotId) -> BTreeMap<u32, Vec<u8>> {
    contents(store, &store.page_tables(id).unwrap()[&RegionName::disk(0)])
}

fn check(store: &Store, id: SnapshotId, expected: &BTreeMap<u32, u32>) {
    let found = disk_of(store, id);
    let expected = expected.iter().filter(|(_, number)| **number != 0);
    let expected: BTreeMap<u32, Vec<u8>> =
        expected.map(|(index, number)| (*index, page(*number).to_vec())).collect();
    assert!(found == expected, "{id} holds something else");
}

/// So many snapshots, each of which writes one of the first pages and one that is new: the last, and what the disk holds.
fn grow(store: &Store, snapshots: u32, first_pages: u32) -> (SnapshotId, BTreeMap<u32, u32>) {
    let (mut newest, mut disk) = (None, BTreeMap::new());
    for number in 1..=snapshots {
        let changes = [(number % first_pages, number), (number, 5000 + number)];
        disk.extend(changes);
        newest = Some(commit(store, u64::from(number), newest, &changes));
    }
    (newest.unwrap(), disk)
}

#[test]
fn what_nothing_reaches_goes_and_the_rest_stays() {
    let (_folder, store) = store();
    let refs = store.refs(MACHINE);
    let first = commit(&store, 1, None, &(0..200).map(|index| (index, 1 + index)).collect::<Vec<_>>());
    let second =
        commit(&store, 2, Some(first), &(0..100).map(|index| (index, 1001 + index)).collect::<Vec<_>>());
    let third = commit(&store, 3, Some(second), &[(0, 2001)]);
    let before = disk_of(&store, third);
    assert_eq!(collect(&store), Collected::default(), "all of it is needed");

    assert_eq!(refs.remove(Generation(2)).unwrap(), Some(second));
    assert_eq!(refs.remove(Generation(2)).unwrap(), None);
    let done = collect(&store);
    assert_eq!(done.snapshots_removed, 1, "{done:?}");
    assert!(store.contains(&hash(1001 + 50)), "the third has it from the second");
    assert_eq!(disk_of(&store, third), before, "and needs its list no more");

    let without = [(MACHINE, Generation(1))].into();
    let would = store.collect_dry(&Collecting { without: &without, ..collecting(Duration::ZERO) }).unwrap();
    assert_eq!(store.collect_dry(&collecting(Duration::ZERO)).unwrap(), Collected::default());
    refs.remove(Generation(1)).unwrap();
    let done = collect(&store);
    assert_eq!((done.snapshots_removed, would.snapshots_removed), (1, 1));
    assert!(done.freed_bytes() > 50_000 && would.freed_bytes() > 50_000, "{done:?}, {would:?}");
    assert!(!store.contains(&hash(50)) && store.contains(&hash(150)));
    assert_eq!(disk_of(&store, third), before);
    assert_eq!(damage(&store), [""; 0]);
    // What was kept for the sake of pages that went with the same run.
    while collect(&store) != Collected::default() {}
    assert_eq!(disk_of(&store, third), before);

    refs.remove_all().unwrap();
    collect(&store);
    assert_eq!((files(&store, "packs"), files(&store, "snapshots")), (0, 0));
}

#[test]
fn tags_heads_and_what_is_asked_for_keep_a_snapshot() {
    let (_folder, store) = store();
    let refs = store.refs(MACHINE);
    let ids: Vec<SnapshotId> =
        (1..=4).map(|number| commit(&store, number, None, &[(0, number as u32 * 4)])).collect();
    refs.tag("kept", ids[0], &store.lease().unwrap()).unwrap();
    for number in 1..=4 {
        refs.remove(Generation(number)).unwrap();
    }
    let asked = ids[1];
    store.collect(&Collecting { also: &|| vec![asked], ..collecting(Duration::from_secs(60)) }).unwrap();
    let there = |id: &SnapshotId| store.snapshot(*id).is_ok();
    assert_eq!(ids.iter().map(there).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(damage(&store), [""; 0]);
}

/// A guest knows what its pages hold, and so what the nodes above them are: it may write one as a page.
#[test]
fn a_page_that_is_a_node_as_well_keeps_what_is_below_it() {
    let (_folder, store) = store();
    let refs = store.refs(MACHINE);
    let pages: Vec<_> = (0..128).map(|index| (index, 1 + index)).collect();
    let first = commit(&store, 1, None, &pages);
    let mut leaf = [0; PAGE_SIZE];
    for (name, (_, number)) in leaf.as_chunks_mut().0.iter_mut().zip(&pages) {
        *name = hash(*number).0;
    }
    let (lease, draft) = (store.lease().unwrap(), draft(2, Some(first)));
    let delta = [(RegionName::disk(0), [(200, PageHash::of(&leaf))].into_iter().collect())].into();
    let mut pack = store.new_pack(&lease).unwrap();
    assert!(!pack.put(PageHash::of(&leaf), &leaf).unwrap(), "it is there, as a node");
    let mut regions = after(&store, &mut pack, &draft, &delta);
    pack.finish().unwrap();
    let (second, _) = store.publish(&draft, &delta, &mut regions, None, &key(), &lease).unwrap();
    refs.add(Generation(2), second, &lease).unwrap();
    refs.set_head(Generation(2), second, &lease).unwrap();
    drop(lease);
    let before = disk_of(&store, second);
    assert_eq!(before.len(), 129);

    refs.remove(Generation(1)).unwrap();
    collect(&store);
    collect(&store);
    assert_eq!(disk_of(&store, second), before);
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn many_small_packs_become_few() {
    let (_folder, store) = store();
    let (newest, disk) = grow(&store, 100, 30);
    assert!(files(&store, "packs") >= 100);
    let done = collect(&store);
    assert!(files(&store, "packs") <= 14, "{} packs, {done:?}", files(&store, "packs"));
    check(&store, newest, &disk);
    assert_eq!(damage(&store), [""; 0]);
    let again = Store::open(store.folder()).unwrap();
    check(&again, newest, &disk);
}

/// What it writes then is what lies there already, which looks like garbage or like what is replaced.
#[test]
fn a_collection_that_was_cut_short_is_done_again() {
    let (_folder, store) = store();
    let (newest, disk) = grow(&store, 20, 6);
    let packs = store.folder().join("packs");
    let before = tempfile::tempdir_in(store.folder()).unwrap();
    let copy_all = |from: &Path, to: &Path| {
        for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy_all(&packs, before.path());
    collect(&store);
    // In packs/, or half of it put aside.
    for folder in [&packs, &store.folder().join("condemned")] {
        copy_all(before.path(), folder);
        let again = Store::open(store.folder()).unwrap();
        collect(&again);
        check(&again, newest, &disk);
        assert_eq!(damage(&again), [""; 0]);
    }
    // Nothing but what was written, put aside as well.
    for file in fs::read_dir(&packs).unwrap().map(Result::unwrap) {
        fs::rename(file.path(), store.folder().join("condemned").join(file.file_name())).unwrap();
    }
    copy_all(before.path(), &packs);
    let again = Store::open(store.folder()).unwrap();
    collect(&again);
    check(&again, newest, &disk);
    assert_eq!(damage(&again), [""; 0]);
}

#[test]
fn what_a_writer_has_found_stays_until_it_is_done() {
    let (_folder, store) = store();
    let gone = commit(&store, 1, None, &[(0, 3), (1, 6)]);
    let refs = store.refs(MACHINE);
    refs.clone().remove_all().unwrap();
    let early = store.lease().unwrap();
    assert!(store.collect(&collecting(Duration::ZERO)).unwrap().is_held_back);
    assert!(condemned(&store).is_empty());
    drop(early);

    let (lease, impatient) = collect_during(&store, || store.lease().unwrap());
    assert!(impatient.is_held_back && impatient.freed_bytes() == 0);
    assert!(!condemned(&store).is_empty());
    let writer = store.new_pack(&lease).unwrap();
    // Who looks now does not count on it, and who looked before may.
    let late = Store::open(store.folder()).unwrap();
    let late_lease = late.lease().unwrap();
    let mut pack = late.new_pack(&late_lease).unwrap();
    assert!(pack.put(hash(6), &page(6)).unwrap(), "it is stored again");
    drop(pack);
    assert!(matches!(
        late.refs(MACHINE).add(Generation(1), gone, &late_lease),
        Err(Error::MissingSnapshot { .. })
    ));
    drop(late_lease);
    check(&late, gone, &[(0, 3), (1, 6)].into());

    let mut writer = writer;
    assert!(!writer.put(hash(3), &page(3)).unwrap(), "it was found");
    writer.finish().unwrap();
    refs.add(Generation(7), gone, &lease).unwrap();
    drop(lease);
    let done = collect(&store);
    assert_eq!((done.packs_removed, done.snapshots_removed), (0, 0), "{done:?}");
    check(&store, gone, &[(0, 3), (1, 6)].into());
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn what_is_published_meanwhile_is_needed() {
    let (_folder, store) = store();
    let first = commit(&store, 1, None, &[(0, 3)]);
    let other = Store::open(store.folder()).unwrap();
    let changes: Vec<_> = (0..50).map(|index| (index, 700 + index)).collect();
    let (second, done) = collect_during(&store, || commit(&other, 2, Some(first), &changes));
    assert_eq!((done.packs_removed, done.snapshots_removed, done.is_held_back), (0, 0, false), "{done:?}");
    check(&store, second, &changes.into_iter().collect());
}

#[test]
fn what_a_snapshot_made_meanwhile_needs_of_garbage_is_all_that_is_left_of_it() {
    let (_folder, store) = store();
    let kept = commit(&store, 1, None, &[(0, 1000)]);
    commit(&store, 2, None, &(0..400).map(|page| (page, page + 1)).collect::<Vec<_>>());
    let refs = store.refs(MACHINE);
    refs.remove(Generation(2)).unwrap();
    refs.set_head(Generation(1), kept, &store.lease().unwrap()).unwrap();
    let made = Cell::new(None);
    // What is needed is being looked for, and this is not known of.
    let progress = |step: &str, _, _| {
        if step == "looking for what is needed" && made.get().is_none() {
            made.set(Some(commit(&store, 3, Some(kept), &[(1, 7), (2, 8)])));
        }
    };
    let done =
        store.collect(&Collecting { progress: &progress, ..collecting(Duration::from_secs(60)) }).unwrap();
    assert!(done.packs_removed > 0 && done.packs_written > 0, "{done:?}");
    assert!(condemned(&store).is_empty());
    for store in [store.clone(), Store::open(store.folder()).unwrap()] {
        check(&store, kept, &[(0, 1000)].into());
        check(&store, made.get().unwrap(), &[(0, 1000), (1, 7), (2, 8)].into());
        assert!(store.contains(&hash(7)) && !store.contains(&hash(100)));
        assert_eq!(damage(&store), Vec::<String>::new());
    }
}

#[test]
fn where_damage_hides_what_is_needed_nothing_is_removed() {
    let (_folder, store) = store();
    commit(&store, 1, None, &[(0, 3)]);
    commit(&store, 2, None, &[(0, 6)]);
    store.refs(MACHINE).remove(Generation(1)).unwrap();
    let head = store.folder().join("refs").join(MACHINE.to_string()).join("head");
    let sound = fs::read(&head).unwrap();
    fs::write(&head, "nonsense").unwrap();
    assert!(matches!(store.collect(&collecting(Duration::ZERO)), Err(Error::Damaged { .. })));
    fs::write(&head, sound).unwrap();
    assert!(condemned(&store).is_empty() && store.contains(&hash(3)));
    assert_eq!(collect(&store).snapshots_removed, 1);
    assert!(!store.contains(&hash(3)));
}

#[test]
fn garbage_is_collected_while_machines_are_captured_restored_and_removed() {
    let (_folder, shared) = store();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_over, root) = (&is_over, shared.folder());
        let collector = scope.spawn(move || {
            let store = Store::open(root).unwrap();
            let mut removed = 0;
            while !is_over.load(Ordering::Relaxed) {
                removed += store.collect(&collecting(Duration::from_secs(60))).unwrap().packs_removed;
            }
            removed
        });
        let verifier = scope.spawn(move || {
            let store = Store::open(root).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(damage(&store), [""; 0]);
            }
        });
        let machines: Vec<_> = (0..3_u32)
            .map(|machine| {
                let store = if machine == 0 { shared.clone() } else { Store::open(root).unwrap() };
                scope.spawn(move || {
                    let id = MachineId([machine as u8; 16]);
                    let refs = store.refs(id);
                    let (mut parent, mut disk) = (None, BTreeMap::new());
                    for generation in 1..=60_u32 {
                        // Pages come back that were garbage before.
                        let changes: Vec<_> = (0..40)
                            .map(|page| (page, 1 + (page * 7 + generation % 5 * 31 + machine) % 300))
                            .collect();
                        disk.extend(changes.iter().copied());
                        let made = commit_for(id, &store, u64::from(generation), parent, &changes);
                        parent = Some(made);
                        if generation > 4 && generation % 8 != 0 {
                            refs.remove(Generation(u64::from(generation) - 4)).unwrap();
                        }
                        check(&store, made, &disk);
                    }
                    (parent.unwrap(), disk)
                })
            })
            .collect();
        let ends: Vec<_> = machines.into_iter().map(|machine| machine.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0);
        verifier.join().unwrap();
        collect(&shared);
        ends.iter().for_each(|(id, disk)| check(&shared, *id, disk));
    });
    assert_eq!(damage(&shared), [""; 0]);
}

#[derive(Clone, Debug)]
enum Step {
    Commit {
        store: usize,
        parent: prop::sample::Index,
        changes: Vec<(u32, u32)>,
    },
    Remove {
        store: usize,
        which: prop::sample::Index,
    },
    Collect {
        store: usize,
    },
    /// With a writer that begins while it goes on.
    CollectDuring {
        store: usize,
        writer: usize,
        which: prop::sample::Index,
    },
    Read {
        store: usize,
    },
    Reopen {
        store: usize,
    },
}

const STORES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let store = || 0..STORES;
    let changes = prop::collection::vec((0_u32..300, 0_u32..600), 1..80);
    let step = prop_oneof![
        6 => (store(), any::<prop::sample::Index>(), changes)
            .prop_map(|(store, parent, changes)| Step::Commit { store, parent, changes }),
        3 => (store(), any::<prop::sample::Index>()).prop_map(|(store, which)| Step::Remove { store, which }),
        2 => store().prop_map(|store| Step::Collect { store }),
        1 => (store(), store(), any::<prop::sample::Index>())
            .prop_map(|(store, writer, which)| Step::CollectDuring { store, writer, which }),
        2 => store().prop_map(|store| Step::Read { store }),
        1 => store().prop_map(|store| Step::Reopen { store }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_that_was_not_removed_stays_whole(steps in steps()) {
        let (_folder, first) = store();
        let root = first.folder().to_owned();
        let mut stores = vec![first];
        stores.resize_with(STORES, || Store::open(&root).unwrap());
        let mut kept: BTreeMap<u64, (SnapshotId, BTreeMap<u32, u32>)> = BTreeMap::new();
        let mut generation = 0;
        for step in steps {
            let pick = |which: prop::sample::Index, kept: &BTreeMap<u64, _>| {
                (!kept.is_empty()).then(|| *which.get(&kept.keys().copied().collect::<Vec<_>>()))
            };
            match step {
                Step::Commit { store, parent, changes } => {
                    generation += 1;
                    let (parent, mut disk) = match pick(parent, &kept) {
                        Some(number) => (Some(kept[&number].0), kept[&number].1.clone()),
                        None => (None, BTreeMap::new()),
                    };
                    let changes: Vec<_> = changes.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
                    disk.extend(changes.iter().copied());
                    kept.insert(generation, (commit(&stores[store], generation, parent, &changes), disk));
                }
                Step::Remove { store, which } => {
                    // The newest is the head.
                    if let Some(number) = pick(which, &kept).filter(|number| *number != generation) {
                        prop_assert!(stores[store].refs(MACHINE).remove(Generation(number)).unwrap().is_some());
                        kept.remove(&number);
                    }
                }
                Step::Collect { store } => drop(collect(&stores[store])),
                Step::CollectDuring { store, writer, which } => {
                    let Some(number) = pick(which, &kept) else { continue };
                    let refs = stores[writer].refs(MACHINE);
                    let (id, disk) = kept[&number].clone();
                    refs.remove(Generation(number)).unwrap();
                    let (lease, done) = collect_during(&stores[store], || stores[writer].lease().unwrap());
                    prop_assert!(done.is_held_back);
                    refs.add(Generation(number), id, &lease).unwrap();
                    check(&stores[writer], id, &disk);
                }
                Step::Read { store } => {
                    for (id, disk) in kept.values() {
                        check(&stores[store], *id, disk);
                    }
                }
                Step::Reopen { store } => stores[store] = Store::open(&root).unwrap(),
            }
        }
        collect(&stores[0]);
        for store in &stores {
            for (id, disk) in kept.values() {
                check(store, *id, disk);
            }
            prop_assert_eq!(damage(store), [""; 0]);
        }
        prop_assert_eq!(files(&stores[0], "leases") + files(&stores[0], "tmp"), 0);
    }
}
