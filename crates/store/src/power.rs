//! What is left of a store when the power fails: at every single change it makes to its folder, with what was not synced
//! kept, lost, torn, or some of it one and some the other. What is promised is in docs/FORMAT.md: every snapshot that a
//! ref names is whole, none that was published is lost, and none that was removed comes back. While damage is being
//! repaired, what is left can be repaired.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use watari_types::{Generation, RegionName, SnapshotId};

use crate::files::folder_of;
use crate::{Parcel, Store};

#[path = "../tests/store/support.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "this test needs a part of it")]
pub(crate) mod support;

use support::{MACHINE, collecting, commit, contents, hash, page};

/// A change of the folder.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create(PathBuf),
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Sync(PathBuf),
    Move {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    SyncFolder(PathBuf),
    /// Not a change: so many operations have returned.
    Returned(usize),
    /// Not a change of the store's: until the operation returns, something is damaged.
    Damaged,
}

thread_local! {
    static CHANGES: RefCell<Option<Vec<Change>>> = const { RefCell::new(None) };
}

/// Notes what has just been done.
pub(crate) fn note(change: impl FnOnce() -> Change) {
    CHANGES.with_borrow_mut(|changes| {
        if let Some(changes) = changes {
            changes.push(change());
        }
    });
}

/// The changes that `work` makes.
fn changes_of(work: impl FnOnce()) -> Vec<Change> {
    CHANGES.set(Some(Vec::new()));
    work();
    CHANGES.take().unwrap()
}

/// A folder on a disk that may lose its power.
#[derive(Default)]
struct Medium {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Names that changed since their folders were synced.
    pending: Vec<Naming>,
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Naming {
    /// The file is there under its new name, and no longer under the old one.
    Is {
        file: usize,
        name: PathBuf,
        was: Option<PathBuf>,
    },
    Gone(PathBuf),
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Lost,
    Some(u64),
}

impl Medium {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path) => {
                self.files.push(Content::default());
                self.name(Naming::Is { file: self.files.len() - 1, name: path.clone(), was: None });
            }
            Change::Write { path, offset, bytes } => {
                self.files[self.names[path]].pending.push((*offset, bytes.clone()));
            }
            Change::Sync(path) => {
                let file = &mut self.files[self.names[path]];
                for (offset, bytes) in std::mem::take(&mut file.pending) {
                    write(&mut file.durable, offset, &bytes);
                }
            }
            Change::Move { from, to } => {
                let was = Some(from.clone());
                self.name(Naming::Is { file: self.names[from], name: to.clone(), was });
            }
            Change::Remove(path) => self.name(Naming::Gone(path.clone())),
            Change::SyncFolder(folder) => {
                let (synced, pending) =
                    std::mem::take(&mut self.pending).into_iter().partition(|op| op.is_in(folder));
                self.pending = pending;
                let synced: Vec<Naming> = synced;
                synced.iter().for_each(|op| op.apply(&mut self.durable_names));
            }
            Change::Returned(_) | Change::Damaged => {}
        }
    }

    fn name(&mut self, op: Naming) {
        op.apply(&mut self.names);
        self.pending.push(op);
    }

    /// Puts into `folder` what is left.
    fn after_power_loss(&self, fate: Fate, folder: &Path) {
        let mut rng = Rng::with_seed(if let Fate::Some(seed) = fate { seed } else { 0 });
        let mut stays = || match fate {
            Fate::Kept => true,
            Fate::Lost => false,
            Fate::Some(_) => rng.bool(),
        };
        let mut names = self.durable_names.clone();
        self.pending.iter().filter(|_| stays()).for_each(|op| op.apply(&mut names));
        for (name, file) in names {
            let Content { mut durable, pending } = self.files[file].clone();
            for (offset, bytes) in pending {
                for (sector, part) in (0..).zip(bytes.chunks(512)).filter(|_| stays()) {
                    write(&mut durable, offset + sector * 512, part);
                }
            }
            fs::write(folder.join(name), durable).unwrap();
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Naming::Is { file, name, was } => {
                was.as_ref().map(|was| names.remove(was));
                names.insert(name.clone(), *file);
            }
            Naming::Gone(name) => drop(names.remove(name)),
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Naming::Is { name, was, .. } => {
                [Some(name), was.as_ref()].into_iter().flatten().any(|name| folder_of(name) == folder)
            }
            Naming::Gone(name) => folder_of(name) == folder,
        }
    }
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}

/// The snapshots that refs name, with what their disks hold: page index and number of the content.
type History = BTreeMap<u64, (SnapshotId, BTreeMap<u32, u32>)>;

/// A store that lives for a while.
struct Life {
    folder: TempDir,
    changes: Vec<Change>,
    /// What history there was before the first operation, and after each.
    histories: Vec<History>,
}

/// One in which snapshots are made, or one that receives them from another store.
fn live(seed: u64, operations: usize, receives: bool) -> Life {
    let mut rng = Rng::with_seed(seed);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut histories = vec![History::new()];
    let changes = changes_of(|| {
        let store = Store::open(&folder.path().join("store")).unwrap();
        let source = receives.then(|| Store::open(&folder.path().join("source")).unwrap());
        note(|| Change::Returned(0));
        for number in 1..=operations {
            let mut history = histories[number - 1].clone();
            operate(&store, source.as_ref(), &mut history, number as u64, &mut rng);
            histories.push(history);
            note(|| Change::Returned(number));
        }
    });
    Life { folder, changes, histories }
}

fn operate(store: &Store, source: Option<&Store>, history: &mut History, number: u64, rng: &mut Rng) {
    let pick =
        |rng: &mut Rng, history: &History| history.keys().copied().nth(rng.usize(0..history.len().max(1)));
    match (rng.u32(0..10), source) {
        (7..=8, Some(source)) if number > 4 => damage_and_repair(store, source, rng),
        (0..=1, _) if number > 4 => {
            assert!(!store.collect(&collecting(Duration::from_secs(60))).unwrap().is_held_back);
        }
        (2..=4, _) if history.len() > 3 => {
            let gone = pick(rng, history).filter(|gone| Some(gone) != history.keys().last());
            if let Some(gone) = gone {
                store.refs(MACHINE).remove(Generation(gone)).unwrap();
                history.remove(&gone);
            }
        }
        _ => {
            let parent = pick(rng, history).map(|parent| history[&parent].clone());
            let (parent, mut disk) = parent.map_or((None, BTreeMap::new()), |(id, disk)| (Some(id), disk));
            let changes: BTreeMap<u32, u32> =
                (0..rng.usize(1..30)).map(|_| (rng.u32(0..200), rng.u32(0..400))).collect();
            disk.extend(&changes);
            disk.retain(|_, number| *number != 0);
            let changes: Vec<_> = changes.into_iter().collect();
            let id = commit(source.unwrap_or(store), number, parent, &changes);
            if let Some(source) = source {
                let parcel = Parcel { machine: MACHINE, generation: Generation(number), id, tags: &[] };
                source.send(&parcel, store, &|_| ()).unwrap();
            }
            history.insert(number, (id, disk));
        }
    }
}

/// Flips a bit of a pack or a manifest, which the medium has forgotten to tell, and takes what suffers from the other store.
fn damage_and_repair(store: &Store, source: &Store, rng: &mut Rng) {
    let files = ["packs", "snapshots"].map(|folder| fs::read_dir(store.folder().join(folder)).unwrap());
    let mut files: Vec<PathBuf> = files.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let path = files.swap_remove(rng.usize(0..files.len()));
    let mut content = fs::read(&path).unwrap();
    let at = rng.usize(0..content.len());
    content[at] ^= 1 << rng.u32(0..8);
    fs::write(&path, &content).unwrap();
    note(|| Change::Damaged);
    note(|| Change::Write { path: path.clone(), offset: at as u64, bytes: vec![content[at]] });
    note(|| Change::Sync(path));
    // Who has the store open has not seen it.
    let store = Store::open(store.folder()).unwrap();
    assert_eq!(store.repair(None, source, &|_| ()).unwrap().0.damaged, []);
}

impl Life {
    /// Cuts the power after so many changes, and checks what is left.
    fn cut(&self, medium: &Medium, returned: usize, is_damaged: bool, fate: Fate, then_collect: bool) {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let root = folder.path().join("store");
        drop(Store::open(&root).unwrap());
        let refs = root.join("refs").join(MACHINE.to_string());
        fs::create_dir_all(refs.join("snapshots")).unwrap();
        medium.after_power_loss(fate, &root);
        let store = Store::open(&root).unwrap();
        if is_damaged {
            let source = Store::open(&self.folder.path().join("source")).unwrap();
            assert_eq!(store.repair(None, &source, &|_| ()).unwrap().0.damaged, []);
        }
        self.check(&store, returned);
        if then_collect {
            store.collect(&collecting(Duration::from_secs(60))).unwrap();
            self.check(&store, returned);
            assert_eq!(fs::read_dir(root.join("condemned")).unwrap().count(), 0);
        }
    }

    /// What refs name is whole, and they name what they did before or after the operation that was under way.
    fn check(&self, store: &Store, returned: usize) {
        let found: BTreeMap<u64, SnapshotId> = store
            .refs(MACHINE)
            .survey()
            .unwrap()
            .whole()
            .unwrap()
            .snapshots
            .into_iter()
            .map(|(g, id)| (g.0, id))
            .collect();
        let before = &self.histories[returned];
        let after = self.histories.get(returned + 1).unwrap_or(before);
        let names =
            |history: &History| history.iter().map(|(g, (id, _))| (*g, *id)).collect::<BTreeMap<_, _>>();
        assert!(found == names(before) || found == names(after), "refs name {found:?}");
        for (generation, id) in found {
            let (_, disk) = before.get(&generation).or(after.get(&generation)).unwrap();
            let table = &store.page_tables(id).unwrap()[&RegionName::disk(0)];
            assert!(table.iter().eq(disk.iter().map(|(index, number)| (*index, hash(*number)))));
            for (index, content) in contents(store, table) {
                assert!(content == page(disk[&index]), "page {index} of {generation}");
            }
        }
        assert_eq!(store.verify(None, &|_| ()).unwrap().damaged, []);
    }
}

/// Cuts a life at every change.
fn cut_everywhere(seed: u64, operations: usize, receives: bool) -> usize {
    let life = live(seed, operations, receives);
    let root = life.folder.path().join("store");
    let mut medium = Medium::default();
    let (mut returned, mut is_damaged, mut cuts) = (None, false, 0);
    for (number, change) in life.changes.iter().enumerate() {
        match change {
            Change::Returned(count) => (returned, is_damaged) = (Some(*count), false),
            Change::Damaged => is_damaged = true,
            _ => {}
        }
        if let Some(change) = relative(change, &root) {
            medium.apply(&change);
        }
        // A store that is being made is made again.
        let Some(returned) = returned else { continue };
        for fate in [Fate::Kept, Fate::Lost, Fate::Some(seed << 20 | number as u64)] {
            life.cut(&medium, returned, is_damaged, fate, number % 7 == 0);
            cuts += 1;
        }
    }
    cuts
}

/// The change of the store's own folder.
fn relative(change: &Change, root: &Path) -> Option<Change> {
    let path = |path: &PathBuf| path.strip_prefix(root).map(Path::to_owned).ok();
    Some(match change {
        Change::Create(at) => Change::Create(path(at)?),
        Change::Write { path: at, offset, bytes } => {
            Change::Write { path: path(at)?, offset: *offset, bytes: bytes.clone() }
        }
        Change::Sync(at) => Change::Sync(path(at)?),
        Change::Move { from, to } => Change::Move { from: path(from)?, to: path(to)? },
        Change::Remove(at) => Change::Remove(path(at)?),
        Change::SyncFolder(at) => Change::SyncFolder(path(at)?),
        Change::Returned(count) => Change::Returned(*count),
        Change::Damaged => Change::Damaged,
    })
}

#[test]
fn whatever_instant_the_power_fails_history_is_whole() {
    cut_lives(2, false);
}

#[test]
fn whatever_instant_the_power_fails_what_was_received_is_whole() {
    cut_lives(1, true);
}

/// `WATARI_SEEDS` lives instead of so many.
fn cut_lives(seeds: u64, receives: bool) {
    let seeds = std::env::var("WATARI_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(seeds);
    let cuts: usize = (0..seeds).map(|seed| cut_everywhere(seed, 24, receives)).sum();
    println!("{cuts} cuts");
    assert!(cuts > 500 * seeds as usize);
}
