//! Snapshots and refs as a keeper uses them.

use crate::support::*;
use watari_store::{Error, Head, NodeKey, PackStats, Regions, Store};
use watari_types::{Generation, MachineId, PAGE_SIZE, PageHash, PageTable, RegionName, SnapshotId};

#[test]
fn a_snapshot_reads_back_as_it_was_published() {
    let (_folder, store) = store();
    store_pages(&store, 1..=200);
    let changes = [(0, 1), (1, 2), (2, 0), (7, 3), (4095, 200)];
    let draft = draft(1, None);
    let (id, bytes) = publish_delta(&store, &draft, &changes, Some(b"device state"), &key()).unwrap();

    let snapshot = store.snapshot(id).unwrap();
    assert_eq!((snapshot.id, snapshot.node, snapshot.manifest_bytes), (id, key().id(), bytes));
    assert_eq!(snapshot.draft, draft);
    let counts = snapshot.changes[&RegionName::disk(0)];
    assert_eq!((counts.data, counts.zero, snapshot.device_state_bytes), (4, 1, 12));
    let mut disk = PageTable::new();
    disk.apply(&disk_delta(&changes)[&RegionName::disk(0)]);
    let root = disk.root(u64::from(DISK_PAGES));
    assert_eq!(snapshot.roots, [(RegionName::disk(0), root), (ram(), PageHash::ZERO_PAGE)].into());
    assert_eq!(store.device_state(id).unwrap().unwrap(), b"device state");
}

#[test]
fn deltas_are_laid_over_each_other_from_the_first_on() {
    let (_folder, store) = store();
    let first = commit(&store, 1, None, &[(0, 1), (1, 2), (2, 3), (9, 4)]);
    let second = commit(&store, 2, Some(first), &[(1, 0), (2, 5), (3, 6)]);

    let table = &store.page_tables(second).unwrap()[&RegionName::disk(0)];
    let expected = [(0, hash(1)), (2, hash(5)), (3, hash(6)), (9, hash(4))];
    assert_eq!(table.iter().collect::<Vec<_>>(), expected);
    assert!(store.page_tables(second).unwrap()[&ram()].is_empty());
    let pages = contents(&store, table);
    assert_eq!(pages[&3], page(6));
    assert_eq!(pages.len(), 4);
    assert_eq!(store.page_tables(first).unwrap()[&RegionName::disk(0)].get(1), hash(2));
}

#[test]
fn a_long_history_is_read_from_the_nearest_trees_on() {
    let (folder, store) = store();
    let manifests = folder.path().join("store/snapshots");
    let mut line = vec![commit(&store, 1, None, &(0..300).map(|page| (page, page + 1)).collect::<Vec<_>>())];
    for generation in 2..=100 {
        let changes = [(generation as u32 % 40 * 100, generation as u32), (7, generation as u32)];
        line.push(commit(&store, generation, line.last().copied(), &changes));
    }
    let disk = |store: &Store, id| store.page_tables(id).unwrap()[&RegionName::disk(0)].clone();
    let tables: Vec<PageTable> = line.iter().map(|id| disk(&store, *id)).collect();
    let older = |at: usize| {
        let away = manifests.join("away");
        let path = manifests.join(format!("{}.snap", line[at]));
        std::fs::rename(&path, &away).unwrap();
        let fresh = Store::open(&folder.path().join("store")).unwrap();
        let read = fresh.page_tables(*line.last().unwrap());
        std::fs::rename(&away, &path).unwrap();
        read
    };
    // Every snapshot changes two of some 340 pages: after 22 of them more than an eighth, and trees are written.
    let needed: Vec<usize> = (0..line.len()).filter(|at| older(*at).is_err()).collect();
    assert!(
        needed.first().is_some_and(|first| *first > 99 - 22),
        "what lies before the trees is read: {needed:?}"
    );
    for (at, table) in tables.iter().enumerate() {
        let generation = at as u32 + 1;
        assert_eq!(table.get(7), if generation > 1 { hash(generation) } else { hash(8) });
        assert_eq!(
            table.len(),
            300 + u64::from(table.pages().iter().filter(|page| *page >= 300).count() as u32)
        );
    }
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn damaged_trees_are_passed_over_while_there_are_lists_before_them() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    let first = commit(&store, 1, None, &[(0, 1), (500, 2)]);
    let packs = || std::fs::read_dir(root.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    store_pages(&store, [3, 4, 5]);
    let before: Vec<_> = packs().collect();
    // More than half of it changes, so its trees are written.
    let second = commit(&store, 2, Some(first), &[(1, 3), (2, 4), (600, 5)]);
    let expected = store.page_tables(second).unwrap()[&RegionName::disk(0)].clone();
    let with_nodes = packs().find(|path| !before.contains(path)).unwrap();
    let mut bytes = std::fs::read(&with_nodes).unwrap();
    bytes[40] ^= 1;
    std::fs::write(with_nodes, bytes).unwrap();
    let reopened = Store::open(&root).unwrap();
    let read = reopened.page_tables(second).unwrap()[&RegionName::disk(0)].clone();
    assert!(read.differing(&expected).is_empty());
    assert!(!damage(&reopened).is_empty());
}

#[test]
fn what_changed_between_two_snapshots_is_what_changed_in_either_since_they_parted() {
    let (_folder, store) = store();
    let root = commit(&store, 1, None, &[(0, 1), (1, 2)]);
    let fork = commit(&store, 2, Some(root), &[(1, 3)]);
    let left = commit(&store, 3, Some(fork), &[(5, 1)]);
    let left = commit(&store, 4, Some(left), &[(6, 1), (0, 0)]);
    let right = commit(&store, 5, Some(fork), &[(7, 1)]);
    let stranger = commit(&store, 6, None, &[(3, 2)]);
    let between = |one, other| {
        let changed = store.changed_between(one, other).unwrap();
        let back = store.changed_between(other, one).unwrap();
        assert_eq!(changed, back);
        changed.get(&RegionName::disk(0)).map(|pages| pages.iter().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(between(left, left), [0; 0]);
    assert_eq!(between(fork, left), [0, 5, 6]);
    assert_eq!(between(root, left), [0, 1, 5, 6]);
    assert_eq!(between(right, left), [0, 5, 6, 7]);
    assert_eq!(between(stranger, right), [0, 1, 3, 7]);
}

#[test]
fn pages_beyond_the_end_of_a_region_that_shrank_are_gone() {
    let (_folder, store) = store();
    let first = commit(&store, 1, None, &[(0, 1), (8, 2)]);
    let mut smaller = draft(2, Some(first));
    smaller.regions[1].bytes = 8 * PAGE_SIZE as u64;
    let (second, _) = publish_delta(&store, &smaller, &[(1, 1)], None, &key()).unwrap();
    let table = &store.page_tables(second).unwrap()[&RegionName::disk(0)];
    assert_eq!(table.iter().map(|(page, _)| page).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(store.device_state(second).unwrap(), None);
}

#[test]
fn neighbours_of_one_frame_come_as_one_call_and_zero_pages_not_at_all() {
    let (_folder, store) = store();
    store_pages(&store, 1..=100);
    let wanted = (0..100).map(|index| (index, hash(index)));
    let calls = std::sync::Mutex::new(vec![]);
    store
        .read_pages(wanted, 1, &|first, bytes| {
            calls.lock().unwrap().push((first, bytes.len() / PAGE_SIZE));
            Ok(())
        })
        .unwrap();
    assert_eq!(calls.into_inner().unwrap(), [(1, 64), (65, 35)]);
}

#[test]
fn a_failing_receiver_stops_the_reading_and_is_reported() {
    let (_folder, store) = store();
    store_pages(&store, 1..=10);
    let pages = (0..10).map(|index| (index, hash(index)));
    let error = store.read_pages(pages, 2, &|_, _| Err(std::io::ErrorKind::BrokenPipe.into())).unwrap_err();
    assert!(matches!(error, Error::Sink { page: 1, .. }), "{error}");
}

#[test]
fn nothing_is_handed_out_if_a_page_is_missing() {
    let (_folder, store) = store();
    store_pages(&store, [1, 2]);
    let pages = [(0, hash(1)), (1, hash(3))].into_iter();
    let error = store.read_pages(pages, 1, &|_, _| panic!("handed out")).unwrap_err();
    assert!(matches!(error, Error::MissingPage { page, .. } if page == hash(3)), "{error}");
    let error = store.read_page(&hash(3), &mut [0; PAGE_SIZE]).unwrap_err();
    assert!(matches!(error, Error::MissingPage { .. }), "{error}");
}

#[test]
fn pages_are_found_in_the_pack_that_took_the_place_of_another() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    store_pages(&store, 1..=100);
    let (one_by_one, all_at_once) = (Store::open(&root).unwrap(), Store::open(&root).unwrap());
    for pack in std::fs::read_dir(root.join("packs")).unwrap() {
        std::fs::remove_file(pack.unwrap().path()).unwrap();
    }
    store_pages(&Store::open(&root).unwrap(), (1..=110).rev());

    let mut read = [0; PAGE_SIZE];
    one_by_one.read_page(&hash(7), &mut read).unwrap();
    assert_eq!(read, page(7));
    let mut table = PageTable::new();
    table.apply(&(0..100).map(|index| (index, hash(index + 1))).collect());
    for (index, content) in contents(&all_at_once, &table) {
        assert!(content == page(index + 1), "page {index}");
    }
    assert!(!one_by_one.contains(&hash(111)) && one_by_one.contains(&hash(110)));
}

#[test]
fn pages_are_kept_once_and_zero_pages_never() {
    let (_folder, store) = store();
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    assert!(pack.put(hash(1), &page(1)).unwrap());
    assert!(!pack.put(hash(1), &page(1)).unwrap());
    assert!(!pack.put(PageHash::ZERO_PAGE, &page(0)).unwrap());
    assert!(!store.contains(&hash(1)));
    let stats = pack.finish().unwrap();
    assert_eq!((stats.pages, stats.raw_bytes), (1, PAGE_SIZE as u64));
    assert!(store.contains(&hash(1)) && store.contains(&PageHash::ZERO_PAGE));

    let before = store.bytes().unwrap();
    let mut again = store.new_pack(&store.lease().unwrap()).unwrap();
    assert!(!again.put(hash(1), &page(1)).unwrap());
    assert_eq!(again.finish().unwrap(), PackStats::default());
    assert_eq!(store.bytes().unwrap(), before);
}

#[test]
fn a_snapshot_that_would_not_be_whole_is_refused() {
    let (_folder, store) = store();
    store_pages(&store, [1]);
    let refused =
        |draft, changes: &[(u32, u32)]| publish_delta(&store, &draft, changes, None, &key()).unwrap_err();
    assert!(
        matches!(refused(draft(1, None), &[(0, 1), (1, 9)]), Error::MissingPage { page, .. } if page == hash(9))
    );
    let stranger = SnapshotId([9; 32]);
    let orphan = draft(1, Some(stranger));
    let orphan = store
        .publish(&orphan, &disk_delta(&[]), &mut Regions::default(), None, &key(), &store.lease().unwrap())
        .unwrap_err();
    assert!(matches!(orphan, Error::MissingSnapshot { .. }), "{orphan}");
    assert!(matches!(refused(draft(1, None), &[(DISK_PAGES, 1)]), Error::BadDraft(_)));
    let mut no_disk = draft(1, None);
    no_disk.regions.pop();
    assert!(matches!(refused(no_disk, &[(0, 1)]), Error::BadDraft(_)));
    let mut twice = draft(1, None);
    twice.regions.push(twice.regions[0].clone());
    assert!(matches!(refused(twice, &[]), Error::BadDraft(_)));
    let mut verbose = draft(1, None);
    verbose.message = "x".repeat(1 << 20);
    assert!(matches!(refused(verbose, &[]), Error::BadDraft(_)));
}

#[test]
fn a_generation_is_never_given_twice_but_head_and_tags_move() {
    let (_folder, store) = store();
    let (a, b) = (publish(&store, 1, None, &[(0, 1)]), publish(&store, 1, None, &[(0, 2)]));
    let refs = store.refs(MACHINE);
    assert_eq!((refs.head().unwrap(), refs.list().unwrap()), (None, vec![]));
    assert_eq!(store.machines().unwrap(), []);

    refs.add(Generation(10), a, &store.lease().unwrap()).unwrap();
    refs.add(Generation(9), b, &store.lease().unwrap()).unwrap();
    refs.add(Generation(10), a, &store.lease().unwrap()).unwrap();
    let taken = refs.add(Generation(10), b, &store.lease().unwrap()).unwrap_err();
    assert!(matches!(taken, Error::GenerationTaken { existing, .. } if existing == a), "{taken}");
    assert_eq!(refs.list().unwrap(), [(Generation(9), b), (Generation(10), a)]);
    assert_eq!((refs.get(Generation(9)).unwrap(), refs.get(Generation(1)).unwrap()), (Some(b), None));

    for id in [a, b] {
        refs.set_head(Generation(3), id, &store.lease().unwrap()).unwrap();
        assert_eq!(refs.head().unwrap(), Some(Head { generation: Generation(3), id }));
        refs.tag("good", id, &store.lease().unwrap()).unwrap();
        assert_eq!(refs.tags().unwrap().into_iter().collect::<Vec<_>>(), [("good".to_owned(), id)]);
    }
    for bad in ["", "../head", "12", ".hidden", "a/b"] {
        assert!(matches!(refs.tag(bad, a, &store.lease().unwrap()), Err(Error::BadTag(_))), "{bad:?}");
        assert_eq!(refs.untag(bad).unwrap(), None, "{bad:?}");
    }
    assert_eq!(refs.untag("good").unwrap(), Some(b));
    assert_eq!((refs.untag("good").unwrap(), refs.tags().unwrap().len()), (None, 0));
    assert!(refs.head().unwrap().is_some(), "nothing else went");
    let unknown = SnapshotId([1; 32]);
    assert!(matches!(
        refs.add(Generation(11), unknown, &store.lease().unwrap()),
        Err(Error::MissingSnapshot { .. })
    ));
    assert!(matches!(
        refs.set_head(Generation(11), unknown, &store.lease().unwrap()),
        Err(Error::MissingSnapshot { .. })
    ));
    assert!(matches!(store.page_tables(unknown), Err(Error::MissingSnapshot { .. })));
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn removing_a_machine_takes_its_refs_only() {
    let (_folder, store) = store();
    let id = commit(&store, 1, None, &[(0, 1)]);
    let other = MachineId([0xB2; 16]);
    store.refs(other).set_head(Generation(1), id, &store.lease().unwrap()).unwrap();
    assert_eq!(store.machines().unwrap(), [MACHINE, other]);
    store.refs(MACHINE).remove_all().unwrap();
    store.refs(MACHINE).remove_all().unwrap();
    assert_eq!(store.machines().unwrap(), [other]);
    assert_eq!(store.refs(MACHINE).list().unwrap(), []);
    assert_eq!(store.snapshot(id).unwrap().id, id);
}

#[test]
fn a_snapshot_is_found_by_the_beginning_of_its_id() {
    let (_folder, store) = store();
    let id = commit(&store, 1, None, &[(0, 1)]);
    commit(&store, 2, Some(id), &[(0, 2)]);
    let hex = id.to_string();
    for digits in [4, 5, 64] {
        assert_eq!(store.find_snapshot(&hex[..digits]).unwrap(), [(MACHINE, id)]);
    }
    assert_eq!(store.find_snapshot(&hex.to_uppercase()).unwrap(), [(MACHINE, id)]);
    for none in [&hex[..3], "../..", "zzzz", &format!("{hex}0")] {
        assert_eq!(store.find_snapshot(none).unwrap(), []);
    }
}

#[test]
fn verify_counts_what_it_checked_and_tells_how_far_it_is() {
    let (_folder, store) = store();
    let first = commit(&store, 1, None, &(0..300).map(|page| (page, page + 1)).collect::<Vec<_>>());
    commit(&store, 2, Some(first), &[(0, 1000)]);
    store_pages(&store, [2000]);
    let last = std::sync::Mutex::new(0);
    let report = store
        .verify(None, &|progress| {
            // With three leaves and a root.
            assert_eq!(progress.pages_total, 306);
            let mut last = last.lock().unwrap();
            *last = progress.pages_done.max(*last);
        })
        .unwrap();
    assert_eq!((report.snapshots_checked, report.pages_checked, report.damaged), (2, 306, vec![]));
    assert_eq!(last.into_inner().unwrap(), 306);
    let report = store.verify(Some(MACHINE), &|_| ()).unwrap();
    assert_eq!((report.snapshots_checked, report.pages_checked), (2, 305));
    let report = store.verify(Some(MachineId([9; 16])), &|_| ()).unwrap();
    assert_eq!((report.snapshots_checked, report.pages_checked), (0, 0));
}

#[test]
fn a_node_keeps_its_key_and_nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = NodeKey::load_or_create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(NodeKey::load_or_create(&path).unwrap().id(), key.id());
    let signature = key.sign(b"message");
    assert!(NodeKey::verify(key.id(), b"message", &signature));
    assert!(!NodeKey::verify(key.id(), b"massage", &signature));
    assert!(!NodeKey::verify(crate::support::key().id(), b"message", &signature));
    assert!(!format!("{key:?}").contains(&std::fs::read_to_string(&path).unwrap()[..16]));

    for broken in ["", "abc\n", &"0".repeat(64), &"x".repeat(65)] {
        std::fs::write(&path, broken).unwrap();
        assert!(matches!(NodeKey::load_or_create(&path), Err(Error::Damaged { .. })), "{broken:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
    }
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let (folder, _store) = store();
    let root = folder.path().join("store");
    std::fs::write(root.join("format"), "watari-store 2\n").unwrap();
    let refused = Store::open(&root).err().unwrap();
    assert!(matches!(refused, Error::NewerFormat { version: 2, .. }), "{refused}");
    std::fs::write(root.join("format"), "something\n").unwrap();
    assert!(matches!(Store::open(&root).err().unwrap(), Error::Damaged { .. }));
}
