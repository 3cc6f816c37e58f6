//! Pages that arrive while their process runs: who touches one waits for it, and what arrives counts as unwritten.

#![allow(clippy::unwrap_used)]

mod load;

use std::time::{Duration, Instant};

use load::{Kind, Load};
use watari_ram::{Faults, Tracker, TrackerChoice, TrackerKind, arm};
use watari_types::{PAGE_SIZE, PageSet};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn load_process() {
    load::serve_if_asked();
}

struct Watched {
    load: Load,
    faults: Faults,
    tracker: Box<dyn Tracker>,
}

impl Watched {
    /// A load with one area of 1024 pages, none of which is there.
    fn new() -> Option<Watched> {
        if !load::has_write_protection() {
            return None;
        }
        let load = Load::start_small(&[Kind::SharedMemfd], 1024);
        assert_eq!(load.kernel_waits, watari_ram::can_watch());
        if !load::kernel_waits(&load) {
            return None;
        }
        let faults = Faults::watch(load.pid(), load.uffd.unwrap(), &load.ranges[0]).unwrap();
        let tracker = arm(load.pid(), load.uffd, load.ranges.clone(), TrackerChoice::Best).unwrap();
        assert_eq!(tracker.kind(), TrackerKind::WriteProtect);
        Some(Watched { load, faults, tracker })
    }

    fn scan(&mut self) -> Vec<u32> {
        let mut sets = [PageSet::new()];
        self.tracker.scan(&mut sets).unwrap();
        sets[0].iter().collect()
    }

    /// Tells the load something that makes it wait, and returns the page that it waits for.
    fn blocked_by(&mut self, line: &str) -> u32 {
        self.load.tell(line);
        let began = Instant::now();
        loop {
            match self.faults.waiting(Duration::from_millis(100)).unwrap().as_slice() {
                [page] => {
                    assert!(!self.load.is_done(), "it waits");
                    return *page;
                }
                [] => assert!(began.elapsed() < LIMIT, "nobody waits"),
                more => panic!("{more:?}"),
            }
        }
    }
}

fn pages(content: impl IntoIterator<Item = u64>) -> Vec<u8> {
    content.into_iter().flat_map(|word| word.to_ne_bytes().repeat(PAGE_SIZE / 8)).collect()
}

#[test]
fn who_touches_an_absent_page_waits_until_it_is_put_and_putting_is_not_writing() {
    let Some(mut it) = Watched::new() else { return };
    assert_eq!(it.blocked_by("load 0 5"), 5);
    assert_eq!(it.faults.put(4, &pages([40, 50, 60])).unwrap(), 3);
    assert_eq!(it.load.answer(), "50");
    assert_eq!(it.load.ask("load 0 6"), "60");
    // What was never touched of its chunk may be reported once; what was put may not.
    assert!(it.scan().iter().all(|page| ![4, 5, 6].contains(page)));
    assert_eq!(it.scan(), []);
    assert_eq!(it.load.ask("store 0 6 61"), "done");
    assert_eq!(it.scan(), [6]);

    assert_eq!(it.blocked_by("store 0 9 91"), 9);
    it.faults.put(9, &pages([90])).unwrap();
    assert_eq!(it.load.answer(), "done");
    assert_eq!(it.scan(), [9], "written right after it came");
    assert_eq!(it.load.ask("load 0 9"), "91");

    assert_eq!(it.blocked_by("kernel 0 10 7"), 10, "the kernel waits, too");
    it.faults.put(10, &pages([0])).unwrap();
    assert_eq!(it.load.answer(), "done");
    assert_eq!(it.scan(), [10]);
}

#[test]
fn what_is_there_is_not_put_again() {
    let Some(mut it) = Watched::new() else { return };
    assert_eq!(it.faults.put(2, &pages([20])).unwrap(), 1);
    it.load.ask("store 0 2 21");
    assert_eq!(it.faults.put(2, &pages([20, 30])).unwrap(), 0);
    assert_eq!(it.faults.put(0, &pages([0, 10, 20, 30])).unwrap(), 2, "up to the one that is there");
    assert_eq!(it.load.ask("load 0 2"), "21");
    // A page that was given away is awaited again, and reported as any that lost its content.
    it.scan();
    it.load.ask("drop 0 1 1");
    assert_eq!(it.scan(), [1]);
    assert_eq!(it.blocked_by("load 0 1"), 1);
    it.faults.put(1, &pages([0])).unwrap();
    assert_eq!(it.load.answer(), "0");
}

#[test]
fn another_keeper_hears_of_those_who_wait_already() {
    let Some(mut it) = Watched::new() else { return };
    assert_eq!(it.blocked_by("load 0 7"), 7);
    let second = Faults::watch(it.load.pid(), it.load.uffd.unwrap(), &it.load.ranges[0]).unwrap();
    it.faults = second;
    assert_eq!(it.faults.waiting(LIMIT).unwrap(), [7]);
    it.faults.put(7, &pages([70])).unwrap();
    assert_eq!(it.load.answer(), "70");
}

#[test]
fn nobody_waits_any_more_once_all_is_released_and_writes_are_seen_as_ever() {
    let Some(mut it) = Watched::new() else { return };
    it.faults.put(0, &pages(0..600)).unwrap();
    it.scan();
    assert_eq!(it.blocked_by("store 0 800 1"), 800);
    // Half of it, then the rest, which wakes who waits there.
    it.faults.release(0..512).unwrap();
    it.scan();
    it.faults.release(512..1024).unwrap();
    assert_eq!(it.load.answer(), "done");
    it.scan();
    assert_eq!(it.load.ask("load 0 900"), "0");
    assert_eq!(it.load.ask("store 0 3 9"), "done");
    assert_eq!(it.load.ask("store 0 700 9"), "done");
    let written = it.scan();
    assert!(written.contains(&3) && written.contains(&700), "{written:?}");
    assert!(written.iter().all(|page| *page == 3 || *page == 700 || *page == 900), "{written:?}");
    assert_eq!(it.load.ask("load 0 599"), "599");
    let regions = std::fs::read_to_string(format!("/proc/{}/maps", it.load.pid())).unwrap();
    assert_eq!(
        regions.lines().filter(|line| line.contains("memfd:load")).count(),
        1,
        "in one piece:\n{regions}"
    );
}

#[test]
fn the_end_of_the_process_ends_it() {
    let Some(it) = Watched::new() else { return };
    let Watched { load, faults, .. } = it;
    drop(load);
    assert!(faults.put(0, &pages([1])).is_err());
    assert_eq!(faults.waiting(Duration::from_millis(10)).unwrap_or_default(), []);
}
