//! Depots of every kind, as others use them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod archive;
mod bucket;
mod sealed;
#[path = "../../../store/tests/store/support.rs"]
#[allow(dead_code, reason = "these tests need a part of it")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;
use watari_depot::{Access, Address, Depot, Error, Secret};
use watari_store::{Parcel, Store};
use watari_types::{Generation, RegionName, SnapshotId};

use support::{MACHINE, commit, contents, damage, store};

/// A machine's history: a few snapshots, some of many pages, some of few.
struct History {
    _folder: TempDir,
    store: Store,
    line: Vec<SnapshotId>,
}

impl History {
    fn new() -> History {
        let (folder, store) = store();
        let mut line =
            vec![commit(&store, 1, None, &(0..200).map(|page| (page, page + 1)).collect::<Vec<_>>())];
        for generation in 2..=4_u32 {
            let changes = [(generation, 1000 + generation), (100 + generation, 0)];
            line.push(commit(&store, u64::from(generation), line.last().copied(), &changes));
        }
        History { _folder: folder, store, line }
    }

    /// Sends the snapshot at that place of the line.
    fn send(&self, at: usize, to: &Store) -> Result<u64, watari_store::Error> {
        let tags = vec![format!("t{at}")];
        let parcel = Parcel {
            machine: MACHINE,
            generation: Generation(at as u64 + 1),
            id: self.line[at],
            tags: &tags,
        };
        self.store.send(&parcel, to, &|_| ()).map(|sent| sent.bytes)
    }

    /// Checks that what the other store names is what it is here; how many snapshots that are.
    fn compare(&self, there: &Store) -> usize {
        let survey = there.refs(MACHINE).survey().unwrap().whole().unwrap();
        for (generation, id) in &survey.snapshots {
            assert_eq!(*id, self.line[generation.0 as usize - 1]);
            assert_eq!(disk(there, *id), disk(&self.store, *id), "{generation}");
        }
        assert_eq!(damage(there), Vec::<String>::new());
        survey.snapshots.len()
    }
}

fn disk(store: &Store, id: SnapshotId) -> BTreeMap<u32, Vec<u8>> {
    contents(store, &store.page_tables(id).unwrap()[&RegionName::disk(0)])
}

fn open(path: &Path, secret: Option<&Secret>, access: Access) -> Result<Store, Error> {
    let address = Address::parse(&path.to_string_lossy()).unwrap();
    watari_depot::open(&Depot { address: &address, secret, settings: &BTreeMap::new(), nearby: None }, access)
}

#[test]
fn a_folder_is_a_store_as_any_other() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("stick/watari");
    for at in [0, 3] {
        history.send(at, &open(&path, None, Access::Write).unwrap()).unwrap();
    }
    assert_eq!(history.compare(&Store::open(&path).unwrap()), 2);
    assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 2);
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter"), "Dear").unwrap();
    let refused = open(folder.path(), None, Access::Write).err().unwrap();
    assert!(matches!(refused, Error::NotEmpty(_)), "{refused}");
    let refused = open(folder.path(), None, Access::Read).err().unwrap();
    assert!(matches!(refused, Error::Store(watari_store::Error::NoStore { .. })), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
