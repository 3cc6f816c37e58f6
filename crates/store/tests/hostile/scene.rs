//! A sound store of a handful of snapshots: its files, and what each snapshot reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;
use watari_store::{Error, NodeKey, Store};
use watari_types::{Generation, MachineId, SnapshotId};

use super::reading::{Outcome, Reading, read};
use super::remade::Files;
use super::support::{MACHINE, collecting, commit, key, page};

/// Another machine, which is a clone of the first snapshot.
const CLONE: MachineId = MachineId([0xC1; 16]);
/// As [`page`] has them: the first snapshot holds so many.
const PAGES: u32 = 24;

/// A store, taken apart.
pub(crate) struct Scene {
    pub(crate) files: Files,
    /// The manifests' names, each after its parent's.
    pub(crate) line: Vec<String>,
    /// What each snapshot reads.
    pub(crate) readings: BTreeMap<SnapshotId, Reading>,
    pub(crate) key: NodeKey,
}

/// Made once: it is the same every time.
pub(crate) static SCENE: LazyLock<Scene> = LazyLock::new(Scene::new);

impl Scene {
    fn new() -> Scene {
        let folder = folder();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let ids = make_history(&store);
        collect(&store).unwrap();
        assert_eq!(super::damage(&store), [""; 0]);
        let readings = ids.iter().map(|id| match read(&store, *id) {
            Outcome::Reads(reading) => (*id, *reading),
            other => panic!("{other:?}"),
        });
        let line = ids.iter().map(|id| format!("snapshots/{id}.snap")).collect();
        Scene { readings: readings.collect(), line, files: files_in(store.folder()), key: key() }
    }
}

/// The files of a store that has only the first two snapshots.
pub(crate) static FIRST_TWO: LazyLock<Files> = LazyLock::new(|| {
    let folder = folder();
    put_files(folder.path(), &SCENE.files);
    let store = Store::open(folder.path()).unwrap();
    for generation in 3..=5 {
        store.refs(MACHINE).remove(Generation(generation)).unwrap();
    }
    fs::remove_file(folder.path().join(format!("refs/{MACHINE}/head"))).unwrap();
    collect(&store).unwrap();
    assert_eq!(super::damage(&store), [""; 0]);
    files_in(folder.path())
});

/// Five snapshots: one with its trees; two that are little more than changes of it; and from the first on another line of
/// two, each with its trees again.
fn make_history(store: &Store) -> Vec<SnapshotId> {
    let first: Vec<_> = (0..PAGES).map(|at| (at, at + 1)).chain([(4000, 1)]).collect();
    let first = commit(store, 1, None, &first);
    let second = commit(store, 2, Some(first), &[(3, 41), (200, 25)]);
    let third = commit(store, 3, Some(second), &[(4, 0)]);
    let other: Vec<_> = (0..8).map(|at| (at + 100, at + 50)).chain([(3, 0), (300, 59)]).collect();
    let other = commit(store, 4, Some(first), &other);
    let last: Vec<_> = (0..8).map(|at| (at + 300, at + 60)).collect();
    let last = commit(store, 5, Some(other), &last);
    let lease = store.lease().unwrap();
    store.refs(MACHINE).tag("good", second, &lease).unwrap();
    store.refs(CLONE).add(Generation(1), first, &lease).unwrap();
    // Of no snapshot, and a change.
    let mut pack = store.new_pack(&lease).unwrap();
    let mut nearly = page(1);
    nearly[99] = 9;
    pack.put_changed(watari_types::PageHash::of(&nearly), &nearly, &super::support::hash(1)).unwrap();
    pack.finish().unwrap();
    vec![first, second, third, other, last]
}

/// Removes what nothing needs.
pub(crate) fn collect(store: &Store) -> Result<(), Error> {
    store.collect(&collecting(Duration::from_secs(60))).map(drop)
}

/// In memory where that is possible: a fuzzer makes hundreds a second.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The files of a store by name, but for what only says who is writing.
pub(crate) fn files_in(root: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(name),
                false => {
                    drop(files.insert(name.to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
                }
            }
        }
    }
    files.retain(|name, _| name != "collector" && !name.starts_with("leases/"));
    files
}

/// Puts files into a folder; what has the name of a folder is left out.
pub(crate) fn put_files(root: &Path, files: &Files) {
    for (name, content) in files {
        let path = root.join(name);
        if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
            fs::write(&path, content).unwrap();
        }
    }
}
