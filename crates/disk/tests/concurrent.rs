//! Seals are consistent cuts although writers never stop.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::place;
use watari_disk::{Disk, Source};
use watari_types::{Generation, PAGE_SIZE, PageSet};

const WRITERS: u64 = 4;
const PAGES_EACH: u64 = 300;
const PAGES: u64 = WRITERS * PAGES_EACH;
/// Each writer writes at least so often.
const WRITES: u64 = 100;
const CAPTURES: usize = 600;

/// All zeros, but it does not say so: hydration has to copy everything.
struct Blank;

impl Source for Blank {
    fn read(&self, _first: u32, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>> {
        std::iter::once(first..end).collect()
    }
}

/// Where a writer's `number`th write goes. Writers share words (and so locks) but no pages.
fn target(writer: u64, number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 3);
    (mixed >> 20) % PAGES_EACH * WRITERS + writer
}

fn stamped(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(PAGE_SIZE / 8)
}

/// The newest stamp in a page. A write in flight may be there in part, anything older may not.
fn stamp(page: &[u8]) -> u64 {
    page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).max().unwrap()
}

struct Progress {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

fn write_until(disk: &Disk, writer: u64, progress: &Progress, stop: &AtomicBool) {
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        progress.begun.store(number, Ordering::SeqCst);
        disk.write_at(target(writer, number) * PAGE_SIZE as u64, &stamped(number)).unwrap();
        progress.acknowledged.store(number, Ordering::SeqCst);
    }
}

/// A copy of the disk kept up to date by captures alone, as stamps.
struct Replica {
    stamps: Vec<u64>,
}

impl Replica {
    fn capture(&mut self, disk: &Disk, progress: &[Progress], publish: bool) {
        let mut early: PageSet = disk.pending();
        early.union_with(&disk.scan());
        for page in early.iter() {
            let mut content = [0; PAGE_SIZE];
            disk.read_at(u64::from(page) * PAGE_SIZE as u64, &mut content).unwrap();
            self.stamps[page as usize] = stamp(&content);
        }
        let before: Vec<u64> = progress.iter().map(|p| p.acknowledged.load(Ordering::SeqCst)).collect();
        let sealed = disk.seal();
        let after: Vec<u64> = progress.iter().map(|p| p.begun.load(Ordering::SeqCst)).collect();
        if !publish {
            // A capture that fails: nothing of it was read.
            return;
        }
        for page in sealed.pages().iter() {
            let mut content = [0; PAGE_SIZE];
            sealed.read(page, &mut content).unwrap();
            self.stamps[page as usize] = stamp(&content);
        }
        disk.published(sealed, Generation(1));
        for writer in 0..WRITERS {
            self.check(writer, before[writer as usize], after[writer as usize]);
        }
    }

    /// The writer's pages must be as they were after some number of its writes, between `least` and `most`.
    fn check(&self, writer: u64, least: u64, most: u64) {
        let own = |page: &u64| page % WRITERS == writer;
        let newest = (0..PAGES).filter(own).map(|page| self.stamps[page as usize]).max().unwrap();
        assert!(newest >= least, "write {least} of {writer} was acknowledged before the seal and is missing");
        assert!(newest <= most, "write {newest} of {writer} began after the seal");
        let mut expected = vec![0; PAGES as usize];
        for number in 1..=newest {
            expected[target(writer, number) as usize] = number;
        }
        for page in (0..PAGES).filter(own) {
            let (got, expected) = (self.stamps[page as usize], expected[page as usize]);
            assert_eq!(got, expected, "page {page}: the cut has write {newest} of {writer}");
        }
    }
}

#[test]
fn every_seal_is_a_consistent_cut_under_concurrent_writers_and_hydration() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, PAGES * PAGE_SIZE as u64, common::base(Blank)).unwrap();
    let stop = AtomicBool::new(false);
    let progress: Vec<Progress> = (0..WRITERS)
        .map(|_| Progress { begun: AtomicU64::new(0), acknowledged: AtomicU64::new(0) })
        .collect();
    let mut replica = Replica { stamps: vec![0; PAGES as usize] };
    std::thread::scope(|scope| {
        // Also when an assertion fails: the writers would go on for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        for writer in 0..WRITERS {
            let (disk, progress, stop) = (&disk, &progress[writer as usize], &stop);
            scope.spawn(move || write_until(disk, writer, progress, stop));
        }
        let hydration = disk.hydrate();
        // A busy machine may not have let the writers do much by then.
        let have_written = || progress.iter().all(|p| p.acknowledged.load(Ordering::SeqCst) > WRITES);
        for capture in (0..).take_while(|capture| *capture < CAPTURES || !have_written()) {
            replica.capture(&disk, &progress, capture % 3 != 1);
        }
        hydration.wait();
    });
    assert_eq!(disk.absent(), 0);
    replica.capture(&disk, &progress, true);
    assert!(disk.pending().is_empty() && disk.scan().is_empty());
}
