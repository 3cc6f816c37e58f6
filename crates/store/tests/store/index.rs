//! The index that is kept in a file saves time, and is never believed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use watari_store::{Error, Store};
use watari_types::{PAGE_SIZE, RegionName, SnapshotId};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::*;

const HEADER: usize = 24;
const PACK: usize = 64;
const ENTRY: usize = 16;
const CHECK: usize = 8;

/// A store with three snapshots of 30 pages each, and its index.
struct Scene {
    folder: TempDir,
    ids: Vec<SnapshotId>,
    index: Vec<u8>,
}

impl Scene {
    fn new() -> Scene {
        let (folder, store) = store();
        let mut ids = Vec::new();
        for number in 0..3 {
            let changes: Vec<_> = (0..30).map(|page| (page, 1 + number * 30 + page)).collect();
            ids.push(commit(&store, u64::from(number) + 1, ids.last().copied(), &changes));
        }
        collect(&store);
        let index = fs::read(store.folder().join("index")).unwrap();
        Scene { folder, ids, index }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("store/index")
    }

    /// How many packs it tells of, and of how many pages.
    fn counts(&self) -> (usize, usize) {
        let packs = u32::from_le_bytes(*self.index[12..].first_chunk().unwrap()) as usize;
        (packs, u64::from_le_bytes(*self.index[16..].first_chunk().unwrap()) as usize)
    }

    /// Opens the store with that for an index.
    fn open_with(&self, index: &[u8]) -> Store {
        fs::write(self.file(), index).unwrap();
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    fn check(&self, store: &Store, what: &str) {
        for (number, id) in (0..).zip(&self.ids) {
            let table = &store.page_tables(*id).unwrap()[&RegionName::disk(0)];
            for (index, content) in contents(store, table) {
                assert!(content == page(1 + number * 30 + index), "{what}: page {index}");
            }
        }
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        for number in 1..=91 {
            assert_eq!(pack.put(hash(number), &page(number)).unwrap(), number == 91, "{what}: page {number}");
        }
    }
}

fn collect(store: &Store) {
    store.collect(&collecting(Duration::from_secs(60))).unwrap();
}

/// What a file says can be sound although it is not true.
fn with_its_checksum(mut index: Vec<u8>) -> Vec<u8> {
    let end = index.len() - CHECK;
    let check = xxh3_64(&index[..end]);
    index[end..].copy_from_slice(&check.to_le_bytes());
    index
}

#[test]
fn an_index_that_is_damaged_anywhere_is_as_good_as_none() {
    let scene = Scene::new();
    assert_eq!(with_its_checksum(scene.index.clone()), scene.index);
    scene.check(&scene.open_with(&scene.index), "sound");
    fs::remove_file(scene.file()).unwrap();
    scene.check(&Store::open(&scene.folder.path().join("store")).unwrap(), "none");
    for bit in (0..scene.index.len() * 8).step_by(13) {
        let mut flipped = scene.index.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        scene.check(&scene.open_with(&flipped), &format!("bit {bit}"));
    }
    for length in (0..scene.index.len()).step_by(7) {
        scene.check(&scene.open_with(&scene.index[..length]), &format!("cut to {length}"));
    }
    let store = scene.open_with(&[&scene.index[..], &[0; ENTRY]].concat());
    assert_eq!(damage(&store), [""; 0]);
    collect(&store);
    scene.check(&store, "made longer");
}

#[test]
fn what_is_noted_of_a_pack_and_is_wrong_hides_nothing() {
    let scene = Scene::new();
    let (packs, _) = scene.counts();
    let mut index = scene.index.clone();
    for pack in 0..packs {
        // The hash of the beginning of its index, behind its id.
        index[HEADER + pack * PACK + 32] ^= 1;
    }
    scene.check(&scene.open_with(&with_its_checksum(index)), "other hashes");
}

#[test]
fn an_index_of_packs_that_are_gone_and_without_those_that_came_is_brought_up_to_date() {
    let scene = Scene::new();
    let store = scene.open_with(&scene.index);
    commit(&store, 4, scene.ids.last().copied(), &[(0, 500)]);
    let late = Store::open(store.folder()).unwrap();
    assert_eq!(late.pack_count(), scene.counts().0 + 1);
    assert!(late.contains(&hash(500)));
    store.refs(MACHINE).remove_all().unwrap();
    // A machine that is gone takes its packs with it.
    while late.pack_count() > 0 {
        collect(&late);
    }
    let empty = scene.open_with(&scene.index);
    assert_eq!(empty.pack_count(), 0);
    assert!((1..=90).chain([500]).all(|number| !empty.contains(&hash(number))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// It may name places where a page is not, and places that are not, and keep others back.
    #[test]
    fn an_index_that_lies_makes_nobody_believe_that_a_page_is_there(
        lies in prop::collection::vec((any::<prop::sample::Index>(), 0..200_u32, 0..4_u32, 0..100_u32), 1..40)
    ) {
        let scene = Scene::new();
        let (packs, entries) = scene.counts();
        let start = HEADER + packs * PACK;
        let mut all: Vec<[u8; ENTRY]> = scene.index[start..][..entries * ENTRY].as_chunks().0.to_vec();
        for (which, number, pack, position) in lies {
            let entry = &mut all[which.index(entries)];
            entry[..8].copy_from_slice(&hash(number).0[..8]);
            entry[8..12].copy_from_slice(&(pack % packs as u32).to_le_bytes());
            entry[12..].copy_from_slice(&position.to_le_bytes());
        }
        all.sort();
        let lying = [&scene.index[..start], all.as_flattened(), &[0; CHECK]].concat();
        let store = scene.open_with(&with_its_checksum(lying));
        for number in 1..200 {
            let mut read = [0; PAGE_SIZE];
            match store.read_page(&hash(number), &mut read) {
                Ok(()) => prop_assert!(number <= 90 && read == page(number)),
                Err(e) => prop_assert!(matches!(e, Error::MissingPage { .. } | Error::Damaged { .. }), "{e}"),
            }
        }
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        for number in 91..200 {
            prop_assert!(pack.put(hash(number), &page(number)).unwrap(), "page {number} is nowhere");
        }
    }
}
