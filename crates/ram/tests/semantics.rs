//! What counts as written, kind by kind of memory and event by event.

#![allow(clippy::unwrap_used)]

mod load;

use std::os::fd::AsFd;
use std::process::Command;

use load::{Kind, Load};
use rustix::fs::fstat;
use watari_ram::{Backing, Error, ProcessMemory, Range, RemoteFd, Tracker, TrackerChoice, TrackerKind, arm};
use watari_types::{PAGE_SIZE, PageSet, RegionName};

#[test]
fn load_process() {
    load::serve_if_asked();
}

/// A load with one area and its write-protect tracker.
struct Tracked {
    load: Load,
    tracker: Box<dyn Tracker>,
}

impl Tracked {
    /// `before` is done before arming.
    fn new(kind: Kind, pages: usize, before: &[&str]) -> Tracked {
        Tracked::over(Load::start_small(&[kind], pages), before)
    }

    fn over(mut load: Load, before: &[&str]) -> Tracked {
        before.iter().for_each(|line| assert_eq!(load.ask(line), "done"));
        let tracker = arm(load.pid(), load.uffd, load.ranges.clone(), TrackerChoice::Best).unwrap();
        assert_eq!(tracker.kind(), TrackerKind::WriteProtect);
        Tracked { load, tracker }
    }

    /// What is reported, and read, as whoever scans does.
    fn scan(&mut self) -> Vec<u32> {
        let mut sets = [PageSet::new()];
        self.tracker.scan(&mut sets).unwrap();
        let pages: Vec<u32> = sets[0].iter().collect();
        let mut bytes = vec![0; pages.len() * PAGE_SIZE];
        self.load.memory.read_pages(&self.load.ranges[0], &pages, &mut bytes).unwrap();
        pages
    }

    fn after(&mut self, lines: &[&str]) -> Vec<u32> {
        lines.iter().for_each(|line| assert_eq!(self.load.ask(line), "done"));
        self.scan()
    }
}

#[test]
fn a_write_is_reported_once_whoever_makes_it() {
    if !load::has_write_protection() {
        return;
    }
    for kind in Kind::ALL {
        let mut it = Tracked::new(kind, 512, &["store 0 1 7", "store 0 2 7"]);
        assert_eq!(it.scan(), [], "{kind:?}: what was before arming");
        assert_eq!(it.after(&["store 0 1 8", "store 0 100 8"]), [1, 100], "{kind:?}: by the process");
        assert_eq!(it.after(&["kernel 0 2 9", "kernel 0 101 9"]), [2, 101], "{kind:?}: by the kernel");
        let address = it.load.ranges[0].start + 3 * PAGE_SIZE as u64;
        it.load.memory.write(address, &[5; 10]).unwrap();
        assert_eq!(it.scan(), [3], "{kind:?}: from outside");
        assert_eq!(it.scan(), [], "{kind:?}: and no more");
    }
}

#[test]
fn reading_is_not_writing() {
    if !load::has_write_protection() {
        return;
    }
    for kind in Kind::ALL {
        // The first touch of a chunk without content, reading or writing, has all of it reported.
        let mut it = Tracked::new(kind, 512, &["store 0 1 7"]);
        it.load.ask("load 0 0");
        it.scan();
        for page in [0, 1, 2, 300] {
            it.load.ask(&format!("load 0 {page}"));
        }
        it.load.content(0);
        assert_eq!(it.scan(), [], "{kind:?}");
    }
}

#[test]
fn a_dropped_page_is_reported_whether_written_since_or_not() {
    if !load::has_write_protection() {
        return;
    }
    for kind in Kind::ALL {
        let mut it = Tracked::new(kind, 512, &["store 0 1 7", "store 0 2 7", "store 0 3 7"]);
        assert_eq!(it.after(&["drop 0 1 2"]), [1, 2], "{kind:?}: protected");
        assert_eq!(it.after(&["store 0 3 8", "drop 0 3 1"]), [3], "{kind:?}: written");
        it.scan();
        assert_eq!(it.scan(), [], "{kind:?}: and no more");
        assert_eq!(it.after(&["store 0 1 9"]), [1], "{kind:?}: written again");
    }
    let mut it = Tracked::new(Kind::SharedMemfd, 512, &["store 0 1 7"]);
    assert_eq!(it.after(&["remove 0 1 1"]), [1], "MADV_REMOVE");
}

#[test]
fn only_the_written_page_of_a_huge_one_is_reported() {
    if !load::has_write_protection() {
        return;
    }
    let huge = Load::start(&[Kind::Anonymous], 1024);
    let mut it = Tracked::over(huge, &["store 0 0 1", "store 0 512 1"]);
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", it.load.pid())).unwrap();
    if !smaps.lines().any(|line| line.starts_with("AnonHugePages:") && !line.contains(" 0 kB")) {
        println!("no huge pages on this host");
    }
    assert_eq!(it.after(&["store 0 5 1"]), [5]);
    assert_eq!(
        it.after(&["store 0 6 1", "drop 0 512 512"]),
        [6].into_iter().chain(512..1024).collect::<Vec<_>>()
    );
}

#[test]
fn a_shared_page_reclaimed_from_memory_counts_only_if_written() {
    if !load::has_write_protection() {
        return;
    }
    let mut it = Tracked::new(Kind::SharedMemfd, 512, &["store 0 1 7", "store 0 2 7"]);
    assert_eq!(it.after(&["store 0 1 8", "pageout 0 1 2"]), [1]);
    assert_eq!(it.load.ask("load 0 1"), "8");
    assert_eq!(it.scan(), []);
}

#[test]
fn a_hole_that_was_filled_and_reclaimed_is_noticed_when_it_is_punched_again() {
    if !load::has_write_protection() {
        return;
    }
    let mut it = Tracked::new(Kind::SharedMemfd, 512, &["store 0 1 7"]);
    assert_eq!(it.after(&["drop 0 1 1"]), [1]);
    assert_eq!(it.after(&["store 0 1 8", "pageout 0 1 1"]), [1]);
    assert_eq!(it.after(&["drop 0 1 1"]), [1]);
}

#[test]
fn memory_that_was_never_touched_is_reported_a_page_table_at_a_time_and_then_page_by_page() {
    if !load::has_write_protection() {
        return;
    }
    for kind in [Kind::SharedMemfd, Kind::SparseMemfd] {
        let mut it = Tracked::new(kind, 4096, &["store 0 1 7"]);
        it.scan();
        let second: Vec<u32> = (512..1024).collect();
        assert_eq!(it.after(&["store 0 600 1"]), second, "{kind:?}");
        assert_eq!(it.scan(), [], "{kind:?}: and no more");
        assert_eq!(it.after(&["store 0 601 1", "store 0 2 1"]), [2, 601], "{kind:?}");
        assert_eq!(it.after(&["store 0 2048 1"]), (2048..2560).collect::<Vec<_>>(), "{kind:?}");
        assert_eq!(it.after(&["drop 0 2048 1"]), [2048], "{kind:?}");
    }
}

#[test]
fn a_page_table_that_goes_away_with_what_was_written_in_it_is_reported() {
    if !load::has_write_protection() {
        return;
    }
    for kind in Kind::ALL {
        let mut it = Tracked::new(kind, 1024, &["store 0 1 7"]);
        let chunk: Vec<u32> = (512..1024).collect();
        let writes: Vec<String> = chunk.iter().map(|page| format!("store 0 {page} 3")).collect();
        let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
        assert_eq!(it.after(&writes), chunk, "{kind:?}");
        writes.iter().for_each(|line| assert_eq!(it.load.ask(line), "done"));
        assert_eq!(it.after(&["drop 0 512 512"]), chunk, "{kind:?}");
        assert_eq!(it.scan(), [], "{kind:?}: and no more");
    }
}

#[test]
fn more_runs_than_one_system_call_returns_are_all_reported() {
    if !load::has_write_protection() {
        return;
    }
    let mut it = Tracked::new(Kind::SharedMemfd, 16 * 1024, &["fill 0 16384"]);
    let every_second: Vec<u32> = (0..16 * 1024).step_by(2).collect();
    for page in &every_second {
        let address = it.load.ranges[0].start + u64::from(*page) * PAGE_SIZE as u64;
        it.load.memory.write(address, &[1]).unwrap();
    }
    assert_eq!(it.scan(), every_second);
    assert_eq!(it.scan(), []);
}

#[test]
fn reading_holes_through_the_backing_leaves_them_holes() {
    if !load::has_write_protection() {
        return;
    }
    let it = Tracked::new(Kind::SharedMemfd, 512, &["store 0 5 1"]);
    let range = &it.load.ranges[0];
    let Backing::Shared(file) = &range.backing else { panic!("no file") };
    let blocks = || fstat(file.as_fd()).unwrap().st_blocks;
    let before = blocks();
    let mut bytes = vec![1; 512 * PAGE_SIZE];
    it.load.memory.read_pages(range, &(0..512).collect::<Vec<_>>(), &mut bytes).unwrap();
    assert_eq!(bytes[5 * PAGE_SIZE], 1);
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1);
    assert_eq!(blocks(), before);
}

const ADOPT: &str = "WATARI_RAM_ADOPT";

#[test]
fn another_process_can_adopt_it() {
    if !load::has_write_protection() {
        return;
    }
    let mut it = Tracked::new(Kind::SharedMemfd, 512, &["store 0 0 1"]);
    assert_eq!(it.after(&["store 0 1 7"]), [1]);
    let range = &it.load.ranges[0];
    let facts = format!("{} {} {} {}", it.load.pid(), it.load.uffd.unwrap().0, range.start, range.bytes);
    let mut adopter = Command::new("/proc/self/exe");
    let output = adopter.args(["--exact", "adopter", "--nocapture"]).env(ADOPT, facts).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("adopted"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(it.scan(), [7], "what was written after the adopter's last scan");
}

#[test]
fn adopter() {
    let Ok(facts) = std::env::var(ADOPT) else { return };
    let facts: Vec<u64> = facts.split(' ').map(|word| word.parse().unwrap()).collect();
    let (pid, uffd) = (facts[0] as u32, RemoteFd(facts[1] as i32));
    let range = Range::new(RegionName::ram("m0").unwrap(), facts[2], facts[3]);
    let memory = ProcessMemory::open(pid).unwrap();
    let mut tracker = arm(pid, Some(uffd), vec![range.clone()], TrackerChoice::Best).unwrap();
    assert_eq!(tracker.kind(), TrackerKind::WriteProtect);
    let mut scan_after_writing_5 = || {
        memory.write(range.start + 5 * PAGE_SIZE as u64, &[1]).unwrap();
        let mut sets = [PageSet::new()];
        tracker.scan(&mut sets).unwrap();
        sets[0].iter().collect::<Vec<_>>()
    };
    // A page that is not in memory may be anywhere: it counts until it has been read.
    assert_eq!(scan_after_writing_5(), (2..512).collect::<Vec<_>>());
    memory.read(range.start, &mut vec![0; range.bytes as usize]).unwrap();
    assert_eq!(scan_after_writing_5(), [5]);
    memory.write(range.start + 7 * PAGE_SIZE as u64, &[1]).unwrap();
    println!("adopted");
}

#[test]
fn without_a_descriptor_or_on_request_pages_are_compared() {
    let mut load = Load::start_small(&[Kind::Anonymous], 512);
    for (uffd, choice) in [(None, TrackerChoice::Best), (load.uffd, TrackerChoice::Compare)] {
        let mut tracker = arm(load.pid(), uffd, load.ranges.clone(), choice).unwrap();
        assert_eq!(tracker.kind(), TrackerKind::Compare);
        tracker.settle();
        load.ask(&format!("store 0 9 {}", 1 + i32::from(uffd.is_some())));
        for _ in 0..2 {
            let mut sets = [PageSet::new()];
            tracker.scan(&mut sets).unwrap();
            assert_eq!(sets[0].iter().collect::<Vec<_>>(), [9], "until the reading is declared sound");
        }
        tracker.settle();
        let mut sets = [PageSet::new()];
        tracker.scan(&mut sets).unwrap();
        assert!(sets[0].is_empty());
    }
}

#[test]
fn a_descriptor_that_is_none_falls_back_to_comparing() {
    let load = Load::start_small(&[Kind::Anonymous], 512);
    for wrong in [RemoteFd(0), RemoteFd(9999)] {
        let tracker = arm(load.pid(), Some(wrong), load.ranges.clone(), TrackerChoice::Best).unwrap();
        assert_eq!(tracker.kind(), TrackerKind::Compare);
    }
}

#[test]
fn a_dead_process_is_called_gone() {
    for choice in [TrackerChoice::Best, TrackerChoice::Compare] {
        let mut load = Load::start_small(&[Kind::Anonymous], 512);
        let ranges = load.ranges.clone();
        let mut tracker = arm(load.pid(), load.uffd, ranges.clone(), choice).unwrap();
        load.child.kill().unwrap();
        load.child.wait().unwrap();
        let error = tracker.scan(&mut [PageSet::new()]).unwrap_err();
        assert!(matches!(error, Error::Gone { .. }), "{error:?}");
        let again = arm(load.pid(), load.uffd, ranges, choice);
        assert!(matches!(again, Err(Error::Gone { .. })));
    }
}

#[test]
fn bad_ranges_and_sets_are_refused() {
    let load = Load::start_small(&[Kind::Anonymous], 512);
    let good = load.ranges[0].clone();
    for (start, bytes) in
        [(good.start + 1, 4096), (good.start, 0), (good.start, 100), (u64::MAX - 4095, 8192)]
    {
        let bad = Range { start, bytes, ..good.clone() };
        let armed = arm(load.pid(), load.uffd, vec![bad], TrackerChoice::Best);
        assert!(matches!(armed, Err(Error::BadRange { .. })));
    }
    let nothing_there = Range { start: 0x1000, ..good.clone() };
    let armed = arm(load.pid(), load.uffd, vec![nothing_there], TrackerChoice::Best);
    assert!(matches!(armed, Err(Error::Access { .. })));
    let mut tracker = arm(load.pid(), load.uffd, vec![good], TrackerChoice::Best).unwrap();
    assert!(matches!(tracker.scan(&mut []), Err(Error::WrongSets { .. })));
}
