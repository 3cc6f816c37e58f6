//! A disk that is full or read-only, made with a small tmpfs. Needs root, as `./test` has.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use watari_store::{Error, Store};
use watari_types::{Generation, PAGE_SIZE, RegionName};

use crate::support::*;

/// A file system of 1 MiB, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may mount a file system");
            return None;
        }
        let disk = SmallDisk(tempfile::tempdir().unwrap());
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(disk.path()));
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()));
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let filler = fs::write(self.path().join("filler"), vec![1; 2 << 20]);
        assert_eq!(filler.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn a_full_disk_is_reported_as_such_and_leaves_everything_as_it_was() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = Store::open(&disk.path().join("store")).unwrap();
    let refs = store.refs(MACHINE);
    let first = commit(&store, 1, None, &[(0, 1)]);
    let unchanged = || {
        assert_eq!(refs.list().unwrap(), [(Generation(1), first)]);
        assert_eq!(refs.head().unwrap().unwrap().id, first);
        assert_eq!(damage(&store), [""; 0]);
        assert_eq!(fs::read_dir(disk.path().join("store/tmp")).unwrap().count(), 0);
    };
    let full = |error: Error| assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");

    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    full((10..2000).find_map(|number| pack.put(hash(number), &page(number)).err()).unwrap());
    full(pack.finish().unwrap_err());
    unchanged();

    let mut noise = vec![0; 2 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    full(publish_delta(&store, &draft(2, Some(first)), &[], Some(&noise), &key()).unwrap_err());
    unchanged();

    let second = publish(&store, 2, Some(first), &[(1, 2)]);
    disk.fill();
    full(refs.add(Generation(2), second, &store.lease().unwrap()).unwrap_err());
    full(refs.set_head(Generation(2), second, &store.lease().unwrap()).unwrap_err());
    full(refs.tag("good", second, &store.lease().unwrap()).unwrap_err());
    unchanged();
    disk.empty();
    refs.add(Generation(2), second, &store.lease().unwrap()).unwrap();
    assert_eq!(store.page_tables(second).unwrap()[&RegionName::disk(0)].len(), 2);
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn a_pack_that_met_a_full_disk_can_go_on_when_there_is_space_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = Store::open(&disk.path().join("store")).unwrap();
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    (1..=64).for_each(|number| assert!(pack.put(hash(number), &page(number)).unwrap()));
    disk.fill();
    assert!(matches!(pack.put(hash(65), &page(65)), Err(Error::NoSpace { .. })));
    disk.empty();
    (65..=70).for_each(|number| assert!(pack.put(hash(number), &page(number)).unwrap()));
    assert_eq!(pack.finish().unwrap().pages, 70);
    let mut read = [0; PAGE_SIZE];
    for number in 1..=70 {
        store.read_page(&hash(number), &mut read).unwrap();
        assert_eq!(read, page(number));
    }
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn a_read_only_store_can_be_read_and_says_why_it_cannot_be_written() {
    let Some(disk) = SmallDisk::mount() else { return };
    let root = disk.path().join("store");
    let first = commit(&Store::open(&root).unwrap(), 1, None, &[(0, 1)]);
    disk.remount("ro");
    let store = Store::open(&root).unwrap();
    let refs = store.refs(MACHINE);
    assert_eq!(contents(&store, &store.page_tables(first).unwrap()[&RegionName::disk(0)])[&0], page(1));
    assert_eq!(damage(&store), [""; 0]);

    let read_only = |error: Error| assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    read_only(store.lease().err().unwrap());
    read_only(refs.clone().remove_all().unwrap_err());
    disk.remount("rw");
    assert_eq!(refs.list().unwrap(), [(Generation(1), first)]);
    refs.add(Generation(2), first, &store.lease().unwrap()).unwrap();
}
