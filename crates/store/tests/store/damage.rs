//! Damage is found, named, and never believed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use watari_store::{Error, Regions, Store};
use watari_types::{Generation, PAGE_SIZE, Page, PageHash, RegionName, SnapshotId};

use crate::support::*;

/// Pages that compress to almost nothing, so that every bit of a pack can be tried.
const TINY: [Page; 3] = [[1; PAGE_SIZE], [2; PAGE_SIZE], [3; PAGE_SIZE]];

struct Scene {
    folder: TempDir,
    id: SnapshotId,
    /// It has no trees: without the first it is nothing.
    second: SnapshotId,
    pack: PathBuf,
    /// Another pack, which holds the last page as a change of the first one's first.
    changes: PathBuf,
    manifest: PathBuf,
}

/// The last page.
fn changed() -> Page {
    let mut page = TINY[0];
    page[77] = 7;
    page
}

/// Publishes a snapshot of which there is only a list.
fn second_of(store: &Store, first: SnapshotId, regions: &Regions) -> SnapshotId {
    let (draft, lease) = (draft(2, Some(first)), store.lease().unwrap());
    let delta = disk_delta(&[(7, 0)]);
    let mut regions = regions.after(&delta, &draft.regions);
    let (id, _) = store.publish(&draft, &delta, &mut regions, None, &key(), &lease).unwrap();
    store.refs(MACHINE).add(Generation(2), id, &lease).unwrap();
    id
}

fn packs(root: &Path) -> Vec<PathBuf> {
    fs::read_dir(root.join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

impl Scene {
    /// A store with a snapshot of four pages, and one in which one of them became zero.
    fn new() -> Scene {
        let (folder, store) = store();
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        for page in &TINY {
            pack.put(PageHash::of(page), page).unwrap();
        }
        pack.finish().unwrap();
        let root = folder.path().join("store");
        let first = packs(&root).remove(0);
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        pack.put_changed(PageHash::of(&changed()), &changed(), &PageHash::of(&TINY[0])).unwrap();
        pack.finish().unwrap();
        let changes = packs(&root).into_iter().find(|path| *path != first).unwrap();
        let pages = TINY.iter().chain([&changed()]).map(PageHash::of).collect::<Vec<_>>();
        let disk = (5..).zip(pages).chain([(9, PageHash::ZERO_PAGE)]).collect();
        let delta = [(RegionName::disk(0), disk)].into();
        let draft = draft(1, None);
        let mut nodes = store.new_pack(&store.lease().unwrap()).unwrap();
        let mut regions = after(&store, &mut nodes, &draft, &delta);
        nodes.finish().unwrap();
        let (id, _) = store
            .publish(&draft, &delta, &mut regions, Some(b"devices"), &key(), &store.lease().unwrap())
            .unwrap();
        store.refs(MACHINE).add(Generation(1), id, &store.lease().unwrap()).unwrap();
        store.refs(MACHINE).set_head(Generation(1), id, &store.lease().unwrap()).unwrap();
        store.refs(MACHINE).tag("good", id, &store.lease().unwrap()).unwrap();
        let second = second_of(&store, id, &regions);
        Scene {
            folder,
            id,
            second,
            pack: first,
            changes,
            manifest: root.join("snapshots").join(format!("{id}.snap")),
        }
    }

    /// The same, with an index that tells of all packs, so that none is opened before it is used.
    fn indexed() -> Scene {
        let scene = Scene::new();
        scene.open().collect(&collecting(Duration::from_secs(60))).unwrap();
        assert!(scene.pack.exists() && scene.folder.path().join("store/index").exists());
        scene
    }

    fn open(&self) -> Store {
        Store::open(&self.folder.path().join("store")).unwrap()
    }

    /// Every file that what is kept depends on.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().join("store")]);
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let (below, here): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
            folders.extend(below.into_iter().filter(|path| !path.ends_with("leases")));
            let is_kept = |path: &PathBuf| !path.ends_with("index") && !path.ends_with("collector");
            files.extend(here.into_iter().filter(is_kept));
        }
        files
    }

    fn ref_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("store/refs").join(MACHINE.to_string()).join(name)
    }

    /// With `file` holding `content`: what is read is right or refused, and verify finds the damage.
    fn must_notice(&self, file: &Path, content: &[u8], what: &str) {
        fs::write(file, content).unwrap();
        let store = match Store::open(&self.folder.path().join("store")) {
            Ok(store) => store,
            Err(Error::Damaged { path, .. } | Error::NewerFormat { path, .. })
                if path.ends_with("format") =>
            {
                return;
            }
            Err(other) => panic!("{what}: {other:?}"),
        };
        self.reads_right_or_not_at_all(&store, what);
        let found = damage(&store);
        assert!(!found.is_empty(), "{what}: not found by verify");
    }

    fn reads_right_or_not_at_all(&self, store: &Store, what: &str) {
        let allow = |error: Error| match error {
            Error::Damaged { .. } | Error::NewerFormat { .. } => {}
            other => panic!("{what}: {other:?}"),
        };
        for page in TINY.iter().chain([&changed()]) {
            let mut read = [0; PAGE_SIZE];
            match store.read_page(&PageHash::of(page), &mut read) {
                Ok(()) => assert_eq!(read, *page, "{what}: a wrong page"),
                Err(e) => allow(e),
            }
        }
        match store.snapshot(self.id) {
            Ok(snapshot) => assert_eq!(snapshot.draft, draft(1, None), "{what}: a wrong header"),
            Err(e) => allow(e),
        }
        match store.page_tables(self.id) {
            Ok(tables) => assert_eq!(tables[&RegionName::disk(0)].len(), 4, "{what}: a wrong table"),
            Err(e) => allow(e),
        }
        match store.page_tables(self.second) {
            Ok(tables) => assert_eq!(tables[&RegionName::disk(0)].len(), 3, "{what}: a wrong second table"),
            Err(e) => allow(e),
        }
        match store.device_state(self.id) {
            Ok(state) => assert_eq!(state.as_deref(), Some(b"devices".as_slice()), "{what}"),
            Err(e) => allow(e),
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_never_read() {
    every_bit_is_flipped(&Scene::new());
}

#[test]
fn every_flipped_bit_is_found_when_packs_are_first_used() {
    every_bit_is_flipped(&Scene::indexed());
}

fn every_bit_is_flipped(scene: &Scene) {
    for file in &scene.files() {
        let whole = fs::read(file).unwrap();
        // A manifest is long, but all of it is hashed: one bit of each byte will do.
        let step = if file.extension().is_some_and(|end| end == "snap") { 9 } else { 1 };
        for bit in (0..whole.len() * 8).step_by(step) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            scene.must_notice(file, &flipped, &format!("bit {bit} of {}", file.display()));
        }
        fs::write(file, whole).unwrap();
    }
    assert_eq!(damage(&scene.open()), [""; 0]);
}

#[test]
fn a_file_cut_off_anywhere_is_found() {
    files_are_cut_off(&Scene::new());
    files_are_cut_off(&Scene::indexed());
}

fn files_are_cut_off(scene: &Scene) {
    for file in &scene.files() {
        let whole = fs::read(file).unwrap();
        for length in 0..whole.len() {
            scene.must_notice(file, &whole[..length], &format!("{} cut to {length}", file.display()));
        }
        scene.must_notice(file, &[&whole[..], &[0]].concat(), &format!("{} made longer", file.display()));
        fs::write(file, whole).unwrap();
    }
}

#[test]
fn a_missing_file_is_found_and_the_one_that_needs_it_is_named() {
    let scene = Scene::new();
    let name = |path: &Path| path.display().to_string();
    fs::rename(&scene.pack, scene.pack.with_extension("away")).unwrap();
    let found = damage(&scene.open());
    let names = |path: &Path, what: &str| {
        found.iter().any(|line| line.starts_with(&name(path)) && line.contains(what))
    };
    assert!(names(&scene.manifest, "3 of its pages"), "{found:?}");
    assert!(names(&scene.changes, "which is nowhere"), "{found:?}");
    let error = scene.open().read_page(&PageHash::of(&TINY[0]), &mut [0; PAGE_SIZE]).unwrap_err();
    assert!(matches!(error, Error::MissingPage { .. }), "{error}");

    fs::rename(&scene.manifest, scene.manifest.with_extension("away")).unwrap();
    let found = damage(&scene.open());
    let refs = name(scene.ref_file("head").parent().unwrap());
    assert!(found.iter().any(|line| line.starts_with(&refs)), "{found:?}");
}

#[test]
fn a_damaged_pack_leaves_the_rest_usable_and_its_pages_can_be_stored_again() {
    pages_of_a_damaged_pack_are_stored_again(&Scene::new());
    pages_of_a_damaged_pack_are_stored_again(&Scene::indexed());
}

fn pages_of_a_damaged_pack_are_stored_again(scene: &Scene) {
    let mut bytes = fs::read(&scene.pack).unwrap();
    bytes.truncate(100);
    fs::write(&scene.pack, &bytes).unwrap();
    let store = scene.open();
    let mut read = [0; PAGE_SIZE];
    let error = store.read_page(&PageHash::of(&TINY[0]), &mut read).unwrap_err();
    assert!(matches!(&error, Error::Damaged { path, .. } if *path == scene.pack), "{error}");

    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    for page in &TINY {
        assert!(pack.put(PageHash::of(page), page).unwrap());
    }
    pack.finish().unwrap();
    store.read_page(&PageHash::of(&TINY[0]), &mut read).unwrap();
    assert_eq!(read, TINY[0]);
}

#[test]
fn what_a_page_is_a_change_of_is_checked_with_it() {
    let scene = Scene::new();
    let wanted = || [(5, PageHash::of(&changed()))].into_iter();
    scene.open().check_readable(wanted(), 2).unwrap();
    for file in [&scene.pack, &scene.changes] {
        let whole = fs::read(file).unwrap();
        let mut flipped = whole.clone();
        // In its only frame.
        flipped[20] ^= 1;
        fs::write(file, flipped).unwrap();
        let error = scene.open().check_readable(wanted(), 2).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path, .. } if path == file), "{error}");
        fs::write(file, whole).unwrap();
    }
}

#[test]
fn a_signature_of_somebody_else_is_found() {
    let scene = Scene::new();
    let store = scene.open();
    let stranger = watari_store::NodeKey::from_seed([8; 32]);
    let (other, _) = publish_delta(&store, &draft(1, None), &[], None, &stranger).unwrap();
    let folder = scene.manifest.parent().unwrap();
    let strangers = fs::read(folder.join(format!("{other}.snap"))).unwrap();
    let mut bytes = fs::read(&scene.manifest).unwrap();
    let end = bytes.len() - 64;
    bytes[end..].copy_from_slice(&strangers[strangers.len() - 64..]);
    fs::write(&scene.manifest, &bytes).unwrap();
    let found = damage(&store);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(&format!("not signed by node {}", key().id())), "{found:?}");
}

#[test]
fn a_later_version_is_told_from_damage() {
    let scene = Scene::new();
    let mut pack = fs::read(&scene.pack).unwrap();
    let end = pack.len() - 16;
    pack[8] = 2;
    pack[end] = 2;
    fs::write(&scene.pack, &pack).unwrap();
    let error = scene.open().read_page(&PageHash::of(&TINY[0]), &mut [0; PAGE_SIZE]).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { version: 2, .. }), "{error}");

    let mut manifest = fs::read(&scene.manifest).unwrap();
    manifest[8] = 3;
    let header_end = 48 + u32::from_le_bytes(*manifest[12..].first_chunk().unwrap()) as usize;
    let hash = blake3::Hasher::new().update(&manifest[..16]).update(&manifest[48..header_end]).finalize();
    manifest[16..48].copy_from_slice(hash.as_bytes());
    fs::write(&scene.manifest, &manifest).unwrap();
    let error = scene.open().snapshot(scene.id).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { version: 3, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Larger files, and damage that is not a single bit.
    #[test]
    fn overwritten_bytes_are_found(in_pack: bool, at: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 1..300)) {
        let (folder, store) = store();
        let changes: Vec<_> = (0..150).map(|page| (page * 3, page + 1)).collect();
        let id = commit(&store, 1, None, &changes);
        let root = folder.path().join("store");
        let file = match in_pack {
            true => fs::read_dir(root.join("packs")).unwrap().next().unwrap().unwrap().path(),
            false => root.join("snapshots").join(format!("{id}.snap")),
        };
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let from = at.index(bytes.len());
        let until = (from + noise.len()).min(bytes.len());
        bytes[from..until].copy_from_slice(&noise[..until - from]);
        prop_assume!(bytes != whole);
        fs::write(&file, bytes).unwrap();

        let store = Store::open(&root).unwrap();
        prop_assert!(!damage(&store).is_empty());
        for (_, number) in changes {
            let mut read = [0; PAGE_SIZE];
            if store.read_page(&hash(number), &mut read).is_ok() {
                prop_assert_eq!(read, page(number));
            }
        }
    }
}
