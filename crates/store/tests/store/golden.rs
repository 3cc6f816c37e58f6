//! The format, frozen: `golden/` must be readable for ever, and what is written must not drift from it unnoticed.
//!
//! If only the test of writing fails, after an update of zstd, its output may have changed: then new files are
//! added for writing, and the old ones stay for reading.

use std::fs;

use watari_types::{Generation, PAGE_SIZE, PageHash, RegionName};

use crate::support::*;

/// A pack and a snapshot of version 1.
const PACK: &str = include_str!("golden/tiny.pack.hex");
const SNAPSHOT: &str = include_str!("golden/tiny.snap.hex");
/// The same with trees, and a snapshot of version 2.
const PACK_WITH_TREES: &str = include_str!("golden/trees.pack.hex");
const SNAPSHOT_2: &str = include_str!("golden/trees.snap.hex");
const CHANGES: &str = include_str!("golden/changes.pack.hex");
const CHANGES_ID: &str = "9b99a97a7336da3793b20fa80d569df69b80b873cf32b84e4014a824addec69f";
const PACK_ID: &str = "43eb475880891348c655fa525977aec3772214a7dfc6be011d35df2d7d597985";
const SNAPSHOT_ID: &str = "f128b0b96b4e93e8dbbc6a8b05a5d2bc2e9fd410087e65e85622ab3b714e7318";
const HEAD: &str = "1 f128b0b96b4e93e8dbbc6a8b05a5d2bc2e9fd410087e65e85622ab3b714e7318 dd2716d1\n";
const PACK_WITH_TREES_ID: &str = "64e22edb92ba2f55e75c59f19ce13034a2d36376f59d7b3b4bf6d91834a94ab0";
const SNAPSHOT_2_ID: &str = "924397d49d7d55672a2f1f7d6f3aa1b61e50c0e49a26b92c28a6fa8af25cf1a9";
const HEAD_2: &str = "1 924397d49d7d55672a2f1f7d6f3aa1b61e50c0e49a26b92c28a6fa8af25cf1a9 4e5c3365\n";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

fn pages() -> [(u32, [u8; PAGE_SIZE]); 3] {
    [(3, [1; PAGE_SIZE]), (4, [2; PAGE_SIZE]), (8, [3; PAGE_SIZE])]
}

#[test]
fn what_was_written_once_is_read_for_ever() {
    read((PACK_ID, PACK), (SNAPSHOT_ID, SNAPSHOT), HEAD, 3);
    // Three pages, a leaf and a root.
    read((PACK_WITH_TREES_ID, PACK_WITH_TREES), (SNAPSHOT_2_ID, SNAPSHOT_2), HEAD_2, 5);
    // Without its trees it is the same snapshot.
    read((PACK_ID, PACK), (SNAPSHOT_2_ID, SNAPSHOT_2), HEAD_2, 3);
}

fn read((pack_id, pack): (&str, &str), (id, snapshot): (&str, &str), head: &str, pages_checked: u64) {
    let (folder, store) = store();
    let root = folder.path().join("store");
    fs::write(root.join(format!("packs/{pack_id}.pack")), bytes(pack)).unwrap();
    fs::write(root.join(format!("snapshots/{id}.snap")), bytes(snapshot)).unwrap();
    fs::create_dir(root.join("refs").join(MACHINE.to_string())).unwrap();
    fs::write(root.join("refs").join(MACHINE.to_string()).join("head"), head).unwrap();

    let head = store.refs(MACHINE).head().unwrap().unwrap();
    assert_eq!((head.generation, head.id.to_string().as_str()), (Generation(1), id));
    assert_eq!(store.snapshot(head.id).unwrap().draft, draft(1, None));
    assert_eq!(store.device_state(head.id).unwrap().unwrap(), b"devices");
    let disk = contents(&store, &store.page_tables(head.id).unwrap()[&RegionName::disk(0)]);
    assert_eq!(disk.len(), 3);
    for (index, content) in pages() {
        assert_eq!(disk[&index], content);
    }
    let report = store.verify(None, &|_| ()).unwrap();
    assert_eq!((report.snapshots_checked, report.pages_checked, report.damaged), (1, pages_checked, vec![]));
}

/// The first of [`pages`] with another byte, as a change of it.
fn changed() -> [u8; PAGE_SIZE] {
    let mut page = pages()[0].1;
    page[77] = 7;
    page
}

#[test]
fn a_change_that_was_written_once_is_read_for_ever() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    fs::write(root.join(format!("packs/{PACK_ID}.pack")), bytes(PACK)).unwrap();
    fs::write(root.join(format!("packs/{CHANGES_ID}.pack")), bytes(CHANGES)).unwrap();
    let mut read = [0; PAGE_SIZE];
    store.read_page(&PageHash::of(&changed()), &mut read).unwrap();
    assert_eq!(read, changed());
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn a_change_is_written_with_the_frozen_bytes() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    fs::write(root.join(format!("packs/{PACK_ID}.pack")), bytes(PACK)).unwrap();
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    assert!(pack.put_changed(PageHash::of(&changed()), &changed(), &PageHash::of(&pages()[0].1)).unwrap());
    pack.finish().unwrap();
    let written = fs::read_dir(root.join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let written: Vec<_> = written.filter(|path| path.file_stem().unwrap() != PACK_ID).collect();
    assert_eq!(lines(&fs::read(&written[0]).unwrap()), CHANGES);
    assert_eq!((written.len(), written[0].file_stem().unwrap()), (1, CHANGES_ID.as_ref()));
}

#[test]
fn what_is_written_has_the_frozen_bytes() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    for (_, content) in &pages() {
        pack.put(PageHash::of(content), content).unwrap();
    }
    let disk = pages().map(|(index, content)| (index, PageHash::of(&content))).into_iter();
    let delta = [(RegionName::disk(0), disk.chain([(9, PageHash::ZERO_PAGE)]).collect())].into();
    let draft = draft(1, None);
    let mut regions = after(&store, &mut pack, &draft, &delta);
    pack.finish().unwrap();
    let (id, _) = store
        .publish(&draft, &delta, &mut regions, Some(b"devices"), &key(), &store.lease().unwrap())
        .unwrap();
    store.refs(MACHINE).set_head(Generation(1), id, &store.lease().unwrap()).unwrap();

    let pack = fs::read_dir(root.join("packs")).unwrap().next().unwrap().unwrap().path();
    let snapshot = fs::read(root.join(format!("snapshots/{id}.snap"))).unwrap();
    assert_eq!(lines(&fs::read(&pack).unwrap()), PACK_WITH_TREES);
    assert_eq!(pack.file_stem().unwrap(), PACK_WITH_TREES_ID);
    assert_eq!(lines(&snapshot), SNAPSHOT_2);
    assert_eq!(id.to_string(), SNAPSHOT_2_ID);
    assert_eq!(fs::read_to_string(root.join("refs").join(MACHINE.to_string()).join("head")).unwrap(), HEAD_2);
}

fn lines(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| format!("{}\n", hex::encode(line))).collect()
}
