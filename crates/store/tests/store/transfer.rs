//! Snapshots sent from one store to another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::*;
use proptest::prelude::*;
use watari_store::{Error, Files, Parcel, ReadAt, Sent, Store};
use watari_types::{Generation, MachineId, RegionName, SnapshotId};

fn send(from: &Store, generation: u64, id: SnapshotId, to: &Store) -> Result<Sent, Error> {
    let parcel = Parcel { machine: MACHINE, generation: Generation(generation), id, tags: &[] };
    from.send(&parcel, to, &|_| ())
}

/// What the disk holds, page by page.
fn disk(store: &Store, id: SnapshotId) -> BTreeMap<u32, Vec<u8>> {
    contents(store, &store.page_tables(id).unwrap()[&RegionName::disk(0)])
}

/// Files in memory, of which the one that is put after so many fails.
#[derive(Default)]
struct Shelf {
    files: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    puts_left: AtomicUsize,
}

struct Content(Arc<Vec<u8>>);

impl Files for Shelf {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let files = self.files.lock().unwrap();
        let below = |name: &String| {
            let rest = name.strip_prefix(folder)?.strip_prefix('/')?;
            Some(rest.split('/').next()?.to_owned())
        };
        let mut names: Vec<String> = files.keys().filter_map(below).collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        let files = self.files.lock().unwrap();
        let content = files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Content(content)))
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        let left =
            self.puts_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut read = vec![0; bytes as usize];
        std::os::unix::fs::FileExt::read_exact_at(content, &mut read, 0)?;
        let mut files = self.files.lock().unwrap();
        if !may_replace && files.contains_key(name) {
            return Ok(false);
        }
        files.insert(name.to_owned(), Arc::new(read));
        Ok(true)
    }

    fn spool(&self) -> io::Result<File> {
        tempfile::tempfile()
    }
}

impl ReadAt for Content {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + into.len();
        into.copy_from_slice(self.0.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[test]
fn only_what_is_not_there_is_sent() {
    let ((_one, here), (_other, there)) = (store(), store());
    let first = commit(&here, 1, None, &(0..400).map(|page| (page, page + 1)).collect::<Vec<_>>());
    let second = commit(&here, 2, Some(first), &[(0, 900), (1, 901), (2, 3)]);
    let third = commit(&here, 3, Some(second), &[(1, 0), (3, 902), (4, 5)]);

    assert_eq!(send(&here, 1, first, &there).unwrap().pages, 400);
    assert_eq!(send(&here, 2, second, &there).unwrap().pages, 2);
    assert_eq!(send(&here, 3, third, &there).unwrap().pages, 1);
    assert_eq!(send(&here, 3, third, &there).unwrap(), Sent::default());
    for id in [first, second, third] {
        assert_eq!(disk(&there, id), disk(&here, id));
    }
    assert!(there.refs(MACHINE).head().unwrap().is_none());
    assert_eq!(damage(&there), Vec::<String>::new());
}

#[test]
fn a_snapshot_is_whole_without_those_before_it() {
    let ((_one, here), (other, there)) = (store(), store());
    let mut line = vec![commit(&here, 1, None, &(0..300).map(|page| (page, page + 1)).collect::<Vec<_>>())];
    for generation in 2..=40_u32 {
        let changes = [(generation * 7 % 300, 1000 + generation), (generation, 0)];
        line.push(commit(&here, u64::from(generation), line.last().copied(), &changes));
    }
    for at in [20, 39, 5] {
        let sent = send(&here, at as u64 + 1, line[at], &there).unwrap();
        assert_eq!(sent.snapshots, 1, "{at}");
        // By a store that never saw what it was sent with.
        let fresh = Store::open_fixed(&other.path().join("store")).unwrap();
        assert_eq!(disk(&fresh, line[at]), disk(&here, line[at]), "{at}");
        assert_eq!(damage(&fresh), Vec::<String>::new());
    }
}

#[test]
fn what_went_wrong_is_gone_on_with() {
    let (_folder, here) = store();
    let first = commit(&here, 1, None, &(0..3000).map(|page| (page, page + 1)).collect::<Vec<_>>());
    let shelf = Arc::new(Shelf { puts_left: AtomicUsize::new(usize::MAX), ..Shelf::default() });
    let open = || Store::open_elsewhere(Path::new("shelf"), shelf.clone() as Arc<dyn Files>, false).unwrap();
    drop(open());
    for failures in 0.. {
        shelf.puts_left.store(1, Ordering::Relaxed);
        let there = open();
        match send(&here, 1, first, &there) {
            Ok(_) => {
                assert!(failures >= 2, "packs, the manifest and the ref are more than one file");
                break;
            }
            Err(Error::Io { .. }) => {}
            Err(e) => panic!("{e}"),
        }
        shelf.puts_left.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(damage(&open()), Vec::<String>::new(), "after {failures}");
    }
    assert_eq!(disk(&open(), first), disk(&here, first));
    let fixed = Store::open_elsewhere(Path::new("shelf"), shelf.clone() as Arc<dyn Files>, true).unwrap();
    assert_eq!(fixed.machines().unwrap(), [MACHINE]);
}

#[test]
fn two_histories_of_one_machine_are_told_apart() {
    let ((_one, here), (_other, there)) = (store(), store());
    let mine = commit(&here, 1, None, &[(0, 1)]);
    let theirs = commit(&there, 1, None, &[(0, 2)]);
    let refused = send(&here, 1, mine, &there).unwrap_err();
    assert!(matches!(refused, Error::GenerationTaken { existing, .. } if existing == theirs), "{refused}");
    let parcel = Parcel {
        machine: MachineId([9; 16]),
        generation: Generation(1),
        id: mine,
        tags: &["gold".to_owned()],
    };
    here.send(&parcel, &there, &|_| ()).unwrap();
    assert_eq!(there.refs(MachineId([9; 16])).tagged("gold").unwrap(), Some(mine));
}

#[test]
fn what_is_not_what_it_is_called_is_not_taken() {
    let ((one, here), (_other, there)) = (store(), store());
    let first = commit(&here, 1, None, &(1..200).map(|page| (page, page)).collect::<Vec<_>>());
    for pack in fs::read_dir(one.path().join("store/packs")).unwrap() {
        let path = pack.unwrap().path();
        let mut content = fs::read(&path).unwrap();
        content[100] ^= 1;
        fs::write(&path, content).unwrap();
    }
    let refused = send(&here, 1, first, &there).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert_eq!(there.machines().unwrap(), []);
}

#[test]
fn where_no_store_is_none_is_begun_to_read_it() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_fixed(folder.path()), Err(Error::NoStore { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever of a history is sent, in whatever order, to a store that loses some of it again.
    #[test]
    fn any_part_of_a_history_arrives_whole(
        changes in prop::collection::vec(prop::collection::vec((0_u32..300, 0_u32..600), 1..40), 1..12),
        parents in prop::collection::vec(any::<prop::sample::Index>(), 12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    ) {
        let ((_one, here), (_other, there)) = (store(), store());
        let mut made: Vec<SnapshotId> = Vec::new();
        for (number, changes) in changes.iter().enumerate() {
            let parent = (!made.is_empty()).then(|| made[parents[number].index(made.len())]);
            let changes: BTreeMap<u32, u32> = changes.iter().copied().collect();
            let changes: Vec<_> = changes.into_iter().collect();
            made.push(commit(&here, number as u64 + 1, parent, &changes));
        }
        for at in order {
            let at = at.index(made.len());
            send(&here, at as u64 + 1, made[at], &there).unwrap();
            prop_assert_eq!(disk(&there, made[at]), disk(&here, made[at]));
        }
        prop_assert_eq!(damage(&there), Vec::<String>::new());
    }
}
