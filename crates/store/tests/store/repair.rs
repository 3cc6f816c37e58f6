//! Which snapshots suffer from damage, and having it mended from another store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use watari_store::{Affected, Parcel, Store};
use watari_types::{Generation, PAGE_SIZE, RegionName};

use crate::support::*;

/// What the disk holds at each generation: the number of each page.
type Model = BTreeMap<Generation, BTreeMap<u32, u32>>;

/// A store and a depot with all of it, or with what it had up to a generation.
struct Scene {
    folder: TempDir,
    model: Model,
}

impl Scene {
    /// A snapshot for each list of changes.
    fn new(history: &[Vec<(u32, u32)>], sent: usize) -> Scene {
        let (folder, store) = store();
        let depot = Store::open(&folder.path().join("depot")).unwrap();
        let (mut model, mut parent, mut held) = (Model::new(), None, BTreeMap::new());
        for (generation, changes) in (1..).zip(history) {
            let changes: Vec<(u32, u32)> =
                changes.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect();
            let id = commit(&store, generation, parent, &changes);
            parent = Some(id);
            held.extend(changes);
            model.insert(Generation(generation), held.clone());
            if generation <= sent as u64 {
                let parcel = Parcel { machine: MACHINE, generation: Generation(generation), id, tags: &[] };
                store.send(&parcel, &depot, &|_| ()).unwrap();
            }
        }
        Scene { folder, model }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    fn depot(&self) -> Store {
        Store::open(&self.folder.path().join("depot")).unwrap()
    }

    /// The generations that can be read, byte by byte, as they were written.
    fn readable(&self, store: &Store) -> Vec<Generation> {
        self.model.keys().copied().filter(|generation| self.reads(store, *generation).is_some()).collect()
    }

    fn reads(&self, store: &Store, generation: Generation) -> Option<()> {
        let id = store.refs(MACHINE).get(generation).ok()??;
        store.signer(id).ok()?;
        assert_eq!(store.device_state(id).ok()??, b"devices");
        let tables = store.page_tables(id).ok()?;
        let nothing = Default::default();
        let table = tables.get(&RegionName::disk(0)).unwrap_or(&nothing);
        let held = self.model[&generation].iter().filter(|(_, number)| **number > 0);
        let held: BTreeMap<u32, u32> = held.map(|(index, number)| (*index, *number)).collect();
        assert_eq!(
            table.iter().map(|(index, _)| index).collect::<Vec<_>>(),
            held.keys().copied().collect::<Vec<_>>()
        );
        for (index, name) in table.iter() {
            let mut content = [0; PAGE_SIZE];
            store.read_page(&name, &mut content).ok()?;
            assert!(content == page(held[&index]), "page {index} of {generation} is another");
        }
        Some(())
    }

    /// That verify names the snapshots that cannot be read, and no other.
    fn names_what_suffers(&self) -> Vec<Affected> {
        let store = self.open();
        let affected = store.verify(None, &|_| ()).unwrap().affected;
        let suffers: Vec<Generation> = affected.iter().map(|one| one.generation).collect();
        let readable = self.readable(&self.open());
        let not: Vec<Generation> =
            self.model.keys().copied().filter(|generation| !readable.contains(generation)).collect();
        assert_eq!(suffers, not, "{affected:?}");
        affected
    }

    fn is_whole(&self) {
        assert_eq!(damage(&self.open()), [""; 0]);
        assert_eq!(self.names_what_suffers(), []);
    }
}

#[test]
fn who_has_had_the_packs_open_names_the_same() {
    let scene = Scene::new(&history(), 0);
    for path in files(&scene.root()).iter().filter(|path| path.extension().is_some_and(|end| end == "pack")) {
        let store = scene.open();
        assert_eq!(scene.readable(&store).len(), 8);
        let before = fs::read(path).unwrap();
        fs::write(path, &before[..before.len() / 2]).unwrap();
        let affected = store.verify(None, &|_| ()).unwrap().affected;
        assert_eq!(affected, scene.names_what_suffers());
        assert!(!affected.is_empty());
        fs::write(path, &before).unwrap();
        // And it has them again.
        assert_eq!(store.verify(None, &|_| ()).unwrap().damaged, []);
        assert_eq!(scene.readable(&store).len(), 8);
    }
}

/// All files of a store that hold something.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["packs".to_owned(), "snapshots".to_owned(), format!("refs/{MACHINE}/snapshots")] {
        found.extend(fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    let at = at % content.len();
    content[at] ^= 16;
    fs::write(path, content).unwrap();
}

fn history() -> Vec<Vec<(u32, u32)>> {
    let mut history = vec![(0..200).map(|page| (page, page + 8)).collect::<Vec<_>>()];
    history
        .extend((1..8_u32).map(|number| (0..20).map(|page| (page * number, 1000 * number + page)).collect()));
    history
}

#[test]
fn snapshots_that_do_not_need_what_is_damaged_are_not_named() {
    let scene = Scene::new(&history(), 0);
    assert_eq!(scene.names_what_suffers(), []);
    for path in files(&scene.root()) {
        let before = fs::read(&path).unwrap();
        for at in (0..before.len()).step_by(before.len() / 7 + 1) {
            flip(&path, at);
            scene.names_what_suffers();
            fs::write(&path, &before).unwrap();
        }
    }
    scene.is_whole();
}

#[test]
fn every_file_that_is_gone_comes_back_from_a_depot() {
    let scene = Scene::new(&history(), 8);
    for path in files(&scene.root()) {
        fs::remove_file(&path).unwrap();
        let (report, repaired) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
        // Who removes a ref removes a snapshot, which is no damage.
        if path.starts_with(scene.root().join("refs")) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            flip_ref(&scene, &path);
        } else {
            assert!(repaired.pages + repaired.snapshots > 0, "{}", path.display());
        }
        assert_eq!((report.damaged, report.affected), (vec![], vec![]), "{}", path.display());
        scene.is_whole();
    }
}

/// A ref of nonsense becomes what it was.
fn flip_ref(scene: &Scene, path: &Path) {
    fs::write(path, "nonsense").unwrap();
    let (report, repaired) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
    assert_eq!((report.damaged, repaired.refs), (vec![], 1), "{}", path.display());
}

#[test]
fn what_the_depot_lacks_stays_damaged_and_the_rest_is_mended() {
    let scene = Scene::new(&history(), 4);
    let packs: Vec<PathBuf> =
        files(&scene.root()).into_iter().filter(|path| path.ends_with("packs")).collect();
    for path in packs.iter().chain(&files(&scene.root())) {
        flip(path, 100);
    }
    let (report, _) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
    let suffers = scene.names_what_suffers();
    assert_eq!(report.affected, suffers);
    assert_eq!(scene.readable(&scene.open()), [1, 2, 3, 4].map(Generation));
    // From one that has all, the rest.
    let other = Scene::new(&history(), 8);
    let (report, _) = scene.open().repair(None, &other.depot(), &|_| ()).unwrap();
    assert_eq!((report.damaged, report.affected), (vec![], vec![]));
    scene.is_whole();
}

#[test]
fn a_pack_of_which_something_is_nowhere_to_be_had_is_kept_aside() {
    let scene = Scene::new(&[(0..200).map(|page| (page, page + 8)).collect(), vec![(0, 1000)]], 0);
    // A depot with some of the pages only.
    store_pages(&scene.depot(), (8..208).filter(|number| number % 2 == 0));
    let store = scene.open();
    let largest =
        files(&scene.root()).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    drop(store);
    flip(&largest, 100);
    let (report, repaired) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
    assert!(repaired.pages > 0 && repaired.packs == 1, "{repaired:?}");
    assert_eq!(report.affected.len(), 2);
    let kept = scene.root().join("damaged").join(largest.file_name().unwrap());
    assert!(kept.exists() && !largest.exists());
    // Now they are missing, and can still be had back.
    store_pages(&scene.depot(), 8..208);
    let (report, _) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
    assert_eq!((report.damaged, report.affected), (vec![], vec![]));
    scene.is_whole();
}

#[test]
fn a_depot_that_lies_is_not_believed() {
    let scene = Scene::new(&history(), 8);
    for path in files(&scene.root()).into_iter().chain(files(&scene.folder.path().join("depot"))) {
        flip(&path, 100);
    }
    let (report, _) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
    assert_eq!(report.affected, scene.names_what_suffers());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 8 } else { 48 }))]
    #[test]
    fn whatever_is_damaged_is_named_and_mended(
        history in prop::collection::vec(prop::collection::vec((0_u32..300, 0_u32..2000), 0..120), 1..12),
        sent in 0_usize..12,
        blows in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>(), 0..3_u8), 1..6),
    ) {
        let scene = Scene::new(&history, sent);
        for (which, at, how) in blows {
            let files = files(&scene.root());
            let path = which.get(&files);
            let content = fs::read(path).unwrap();
            let is_ref = path.starts_with(scene.root().join("refs"));
            match how {
                0 | 1 if is_ref || (how == 0 && !content.is_empty()) => flip(path, at),
                1 => fs::write(path, &content[..at % content.len().max(1)]).unwrap(),
                _ if is_ref => flip(path, at),
                _ => fs::remove_file(path).unwrap(),
            }
        }
        scene.names_what_suffers();
        let before = scene.readable(&scene.open());
        let (report, _) = scene.open().repair(None, &scene.depot(), &|_| ()).unwrap();
        prop_assert_eq!(&report.affected, &scene.names_what_suffers());
        prop_assert!(sent < scene.model.len() || report.damaged.is_empty(), "{:?}", report);
        let after = scene.readable(&scene.open());
        prop_assert!(before.iter().all(|generation| after.contains(generation)), "{:?} {:?}", before, after);
        let sent = scene.model.keys().filter(|generation| generation.0 <= sent as u64);
        for generation in sent {
            prop_assert!(after.contains(generation), "{} is in the depot: {:?}", generation, after);
        }
    }
}
