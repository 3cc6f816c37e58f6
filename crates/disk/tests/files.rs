//! What the engine says of files that are not right, and of disks in use.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{memory, pattern, place};
use watari_disk::{Disk, Error, Source, Zeroes};
use watari_types::{Generation, PAGE_SIZE};

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Makes a disk, damages its map or ledger, and expects the reason for which it is refused to name that.
fn refuses(file: &str, reason: &str, damage: impl Fn(&Path)) {
    let (_folder, path) = place();
    drop(Disk::create(&path, 10 * 4096, memory(&[7; 10 * 4096])).unwrap());
    damage(&path.with_extension(file));
    let Err(err @ Error::Damaged { .. }) = Disk::open(&path, None) else { panic!("{reason}: opened") };
    assert!(err.to_string().contains(reason), "{reason}: {err}");
}

#[test]
fn a_damaged_map_or_ledger_is_refused_with_a_reason() {
    for file in ["map", "ledger"] {
        refuses(file, "magic", |path| overwrite(path, 0, b"X"));
        refuses(file, "version", |path| overwrite(path, 8, &[9]));
        refuses(file, "size", |path| overwrite(path, 16, &[1]));
        refuses(file, "header", |path| overwrite(path, 400, &[1]));
        refuses(file, "short", |path| {
            OpenOptions::new().write(true).open(path).unwrap().set_len(80).unwrap()
        });
        refuses(file, "length", |path| {
            OpenOptions::new().write(true).open(path).unwrap().set_len(8192).unwrap()
        });
        refuses(file, "beyond", |path| overwrite(path, 8192 + 2, &[0xff]));
        refuses(file, "beyond", |path| overwrite(path, 8192 + 2048, &[1]));
    }
    refuses("map", "beyond", |map| overwrite(map, 4096 + 2, &[1]));
    refuses("ledger", "header", |ledger| overwrite(ledger, 24, &[0, 0, 0, 0]));
    refuses("ledger", "header", |ledger| overwrite(ledger, 24, &[3, 1, 0, 0]));
}

/// As if the host had lost its power: nothing of the map is left, and of the rest what was synced.
fn lose_power(path: &Path) {
    overwrite(&path.with_extension("ledger"), 512, &[1; 16]);
    fs::write(path.with_extension("map"), "nothing").unwrap();
}

#[test]
fn after_a_loss_of_power_the_ledger_says_what_there_is() {
    let (_folder, path) = place();
    let content = pattern(1000);
    let disk = Disk::create(&path, content.len() as u64, memory(&content)).unwrap();
    disk.write_at(0, &[1; 8192]).unwrap();
    disk.flush().unwrap();
    disk.write_at(600 * 4096, &[2; 4096]).unwrap();
    drop(disk);
    lose_power(&path);
    let disk = Disk::open(&path, memory(&content)).unwrap();
    let mut expected = content.clone();
    expected[..8192].fill(1);
    for _ in 0..2 {
        let mut got = vec![0; content.len()];
        disk.read_at(0, &mut got).unwrap();
        assert!(got == expected, "what was flushed, and the source for the rest");
        disk.hydrate().wait();
    }
    // Of the region of the first two pages, those that are here.
    assert_eq!(disk.pending().iter().collect::<Vec<_>>(), [0, 1]);
    drop(disk);
    lose_power(&path);
    let disk = Disk::open(&path, None).unwrap();
    assert_eq!(disk.absent(), 0, "hydration is not for nothing");
    assert_eq!(
        disk.pending().iter().collect::<Vec<_>>(),
        [0..256, 512..768].into_iter().flatten().collect::<Vec<_>>()
    );
}

#[test]
fn regions_that_are_left_alone_are_forgotten_in_the_end() {
    let (_folder, path) = place();
    let bytes = 16 << 20;
    let disk = Disk::create(&path, bytes, None).unwrap();
    for page in [0, 256, 512] {
        disk.write_at(page * 4096, &[1; 4096]).unwrap();
    }
    for _ in 0..12 {
        disk.write_at(256 * 4096, &[2; 4096]).unwrap();
        disk.published(disk.seal(), Generation(1));
    }
    drop(disk);
    lose_power(&path);
    let disk = Disk::open(&path, None).unwrap();
    assert_eq!(disk.pending().iter().collect::<Vec<_>>(), (256..512).collect::<Vec<_>>());
}

#[test]
fn a_raw_file_that_is_not_the_maps_is_refused() {
    let (_folder, path) = place();
    drop(Disk::create(&path, 10 * 4096, None).unwrap());
    fs::write(&path, [0; 4096]).unwrap();
    assert!(matches!(Disk::open(&path, None), Err(Error::Damaged { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Disk::open(&path, None), Err(Error::Io { .. })));
}

#[test]
fn a_disk_is_open_once_and_a_size_must_be_possible() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, 4096, None).unwrap();
    assert!(matches!(Disk::open(&path, None), Err(Error::InUse { .. })));
    assert!(matches!(Disk::create(&path, 4096, None), Err(Error::InUse { .. })));
    disk.write_at(0, b"still there").unwrap();
    drop(disk);
    for bytes in [0, 100, 4097, 1 << 44, u64::MAX] {
        assert!(matches!(Disk::create(&path, bytes, None), Err(Error::BadSize { .. })), "{bytes}");
    }
    let disk = Disk::open(&path, None).unwrap();
    let mut got = [0; 11];
    disk.read_at(0, &mut got).unwrap();
    assert_eq!(&got, b"still there");
}

#[test]
fn an_adopted_file_is_unpublished_where_it_has_data() {
    let (_folder, path) = place();
    fs::File::create(&path).unwrap().set_len(100 * 4096 + 512).unwrap();
    overwrite(&path, 50 * 4096 + 7, &[1]);
    overwrite(&path, 100 * 4096, &[2; 512]);
    let disk = Disk::adopt_raw(&path).unwrap();
    assert_eq!(disk.bytes(), 101 * 4096);
    assert_eq!(disk.pending().iter().collect::<Vec<_>>(), [50, 100]);
    assert!(disk.scan().is_empty());
    let mut page = [9; PAGE_SIZE];
    disk.read_at(100 * 4096, &mut page).unwrap();
    assert_eq!((page[511], page[512]), (2, 0));
}

#[test]
fn requests_beyond_the_end_fail_and_change_nothing() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, 8192, None).unwrap();
    for err in [
        disk.write_at(8191, &[1, 1]).unwrap_err(),
        disk.read_at(u64::MAX, &mut [0]).unwrap_err(),
        disk.trim(4096, 4097).unwrap_err(),
        disk.write_zeroes(8193, 0, Zeroes::Hole).unwrap_err(),
    ] {
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
    }
    assert!(disk.scan().is_empty());
}

struct Broken;

impl Source for Broken {
    fn read(&self, _first: u32, _into: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("the cable is cut"))
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<std::ops::Range<u32>> {
        std::iter::once(first..end).collect()
    }
}

#[test]
fn a_source_that_fails_fails_the_request_and_is_asked_again() {
    let (_folder, path) = place();
    let content = pattern(100);
    let disk = Disk::create(&path, content.len() as u64, common::base(Broken)).unwrap();
    let mut page = [0; PAGE_SIZE];
    assert_eq!(disk.read_at(0, &mut page).unwrap_err().to_string(), "the cable is cut");
    assert!(disk.write_at(10, &[1]).is_err(), "a part of a page needs the rest of it");
    disk.write_at(4096, &[5; PAGE_SIZE]).unwrap();
    let hydration = disk.hydrate();
    disk.set_source(memory(&content).map(|base| base.source));
    hydration.wait();
    let mut got = vec![0; content.len()];
    disk.read_at(0, &mut got).unwrap();
    assert!(got[..4096] == content[..4096] && got[8192..] == content[8192..]);
    assert_eq!(got[4096..8192], [5; 4096]);
}

#[test]
fn hydration_stops_when_dropped_though_its_source_is_broken() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, 1 << 20, common::base(Broken)).unwrap();
    drop(disk.hydrate());
    assert_eq!(disk.absent(), 256);
    disk.set_source(None);
    assert!(disk.read_at(0, &mut [0]).is_err());
}

#[test]
fn deferred_flushes_are_made_up_for() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, 1 << 20, None).unwrap();
    let (first, second) = (disk.defer_flushes(), disk.defer_flushes());
    disk.guest_is_held(std::time::UNIX_EPOCH);
    disk.write_at(0, &[1; 8192]).unwrap();
    disk.flush().unwrap();
    disk.guest_is_held(std::time::SystemTime::now());
    disk.flush().unwrap();
    drop(first);
    disk.flush().unwrap();
    second.redeem().unwrap();
    disk.flush().unwrap();
}

#[test]
fn a_writer_without_room_for_old_content_goes_on_when_the_seal_is_dropped() {
    let (_folder, path) = place();
    let bytes = 80 << 20;
    let disk = Disk::create(&path, bytes, None).unwrap();
    disk.write_at(0, &vec![1; bytes as usize]).unwrap();
    let sealed = disk.seal();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| disk.write_at(0, &vec![2; bytes as usize]));
        let mut page = [0; PAGE_SIZE];
        // From the end, where the writer is not: it comes to wait, or gets there first.
        for number in (10_000..20_480).rev() {
            sealed.read(number, &mut page).unwrap();
            assert_eq!(page, [1; PAGE_SIZE]);
        }
        drop(sealed);
        writer.join().unwrap().unwrap();
    });
    let mut got = vec![0; bytes as usize];
    disk.read_at(0, &mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 2));
    assert_eq!(disk.pending().len(), 0, "all written again");
    assert_eq!(disk.scan().len(), 20_480);
}

#[test]
fn discarding_what_is_a_hole_already_marks_nothing() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, 1 << 40, None).unwrap();
    disk.write_at(1 << 30, &[1; 8192]).unwrap();
    disk.scan();
    disk.trim(0, 1 << 40).unwrap();
    assert_eq!(disk.scan().iter().collect::<Vec<_>>(), [1 << 18, (1 << 18) + 1]);
}
