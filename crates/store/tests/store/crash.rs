//! Whatever instant a writer stops at, what is visible is whole.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use watari_store::Store;
use watari_types::{Generation, RegionName};

use crate::support::*;

/// Set for the process that writes until it is killed; names the store's folder.
const WRITER_FOLDER: &str = "WATARI_TEST_WRITER_FOLDER";

#[test]
fn stopping_between_any_two_steps_leaves_the_older_state() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    let first = commit(&store, 1, None, &[(0, 1)]);
    let refs = store.refs(MACHINE);
    let older = |when: &str| {
        let store = Store::open(&root).unwrap();
        let refs = store.refs(MACHINE);
        assert_eq!(refs.list().unwrap(), [(Generation(1), first)], "{when}");
        assert_eq!(refs.head().unwrap().unwrap().id, first, "{when}");
        assert_eq!(damage(&store), [""; 0], "{when}");
    };

    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    (2..200).for_each(|number| assert!(pack.put(hash(number), &page(number)).unwrap()));
    older("while a pack is written");
    drop(pack);
    older("after a pack was given up");
    store_pages(&store, 2..200);
    older("after the pack");
    let second = publish(&store, 2, Some(first), &[(0, 2)]);
    older("after the manifest");

    refs.add(Generation(2), second, &store.lease().unwrap()).unwrap();
    let reopened = Store::open(&root).unwrap();
    assert_eq!(reopened.refs(MACHINE).head().unwrap().unwrap().id, first);
    assert_eq!(reopened.refs(MACHINE).get(Generation(2)).unwrap(), Some(second));
    assert_eq!(reopened.page_tables(second).unwrap()[&RegionName::disk(0)].get(0), hash(2));
    assert_eq!(damage(&reopened), [""; 0]);
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    let in_tmp = || fs::read_dir(root.join("tmp")).unwrap().count();
    let mut living = store.new_pack(&store.lease().unwrap()).unwrap();
    living.put(hash(1), &page(1)).unwrap();
    fs::write(root.join("tmp/dead"), "half a pack").unwrap();
    fs::create_dir(root.join("tmp/removed-machine")).unwrap();
    fs::write(root.join("tmp/removed-machine/head"), "").unwrap();
    assert_eq!(in_tmp(), 3);
    let other = Store::open(&root).unwrap();
    assert_eq!(in_tmp(), 1);
    living.finish().unwrap();
    assert_eq!(in_tmp(), 0);
    other.refresh().unwrap();
    assert!(other.contains(&hash(1)));
}

/// Kills a process that was started, also when the test fails.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_writer_that_is_killed_loses_nothing_it_has_announced() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    for kill_after in [1, 2, 3, 7] {
        let before = store.refs(MACHINE).list().unwrap().len();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::write_until_killed", "--exact", "--ignored", "--nocapture"])
            .env(WRITER_FOLDER, &root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut writer = Writer(child);
        let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
        let announced =
            lines.map_while(Result::ok).filter(|line| line == "committed").take(kill_after).count();
        drop(writer);
        assert_eq!(announced, kill_after, "the writer ended by itself");

        let store = Store::open(&root).unwrap();
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
        let snapshots = store.refs(MACHINE).list().unwrap();
        assert!(snapshots.len() >= before + announced);
        for (generation, id) in snapshots {
            let table = &store.page_tables(id).unwrap()[&RegionName::disk(0)];
            assert_eq!(table.iter().collect::<Vec<_>>(), written_by(generation.0), "generation {generation}");
        }
        assert_eq!(damage(&store), [""; 0]);
    }
}

fn written_by(generation: u64) -> Vec<(u32, watari_types::PageHash)> {
    (0..70).map(|index| (index, hash(generation as u32 * 100 + index))).collect()
}

/// Not a test of its own: the writer of the test above.
#[test]
#[ignore = "runs until it is killed"]
fn write_until_killed() {
    let Some(root) = std::env::var_os(WRITER_FOLDER) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    loop {
        let last = store.refs(MACHINE).list().unwrap().last().copied();
        let generation = last.map_or(1, |(generation, _)| generation.0 + 1);
        let changes: Vec<_> = (0..70).map(|index| (index, generation as u32 * 100 + index)).collect();
        commit(&store, generation, last.map(|(_, id)| id), &changes);
        println!("committed");
    }
}
