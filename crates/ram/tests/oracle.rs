//! No written page is ever missed: a copy that follows a process only through what the tracker reports stays
//! identical to the process's memory, over millions of random writes from several threads while it forks,
//! drops pages, has them paged out and has the kernel write to them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod load;

use std::os::unix::process::CommandExt;
use std::process::Command;

use load::{Kind, Load};
use watari_ram::{Range, Tracker, TrackerChoice, TrackerKind, arm};
use watari_types::{PAGE_SIZE, PageSet};

const THREADS: u64 = 3;
const AREA_PAGES: usize = 4096;

#[test]
fn load_process() {
    load::serve_if_asked();
}

/// The memory as it was read, page by page, when the tracker said so.
struct Copy {
    areas: Vec<Vec<u8>>,
    reported: u64,
    scans: u64,
    checks: u64,
}

impl Copy {
    fn follow(&mut self, load: &Load, tracker: &mut dyn Tracker) {
        let mut sets = vec![PageSet::new(); load.ranges.len()];
        tracker.scan(&mut sets).unwrap();
        self.scans += 1;
        for ((range, set), area) in load.ranges.iter().zip(&sets).zip(&mut self.areas) {
            self.reported += set.len();
            read_into(load, range, set, area);
        }
    }

    /// Follows the load, which is held, and compares everything.
    fn check(&mut self, load: &Load, tracker: &mut dyn Tracker) {
        load.hold();
        self.follow(load, tracker);
        tracker.settle();
        for (index, area) in self.areas.iter().enumerate() {
            let real = load.content(index);
            if *area != real {
                let pages = area.chunks(PAGE_SIZE).zip(real.chunks(PAGE_SIZE));
                let wrong: Vec<usize> =
                    pages.enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
                panic!("area {index}, check {}: {} pages differ: {wrong:?}", self.checks, wrong.len());
            }
        }
        self.checks += 1;
        load.go_on();
    }
}

fn read_into(load: &Load, range: &Range, set: &PageSet, area: &mut [u8]) {
    let pages: Vec<u32> = set.iter().collect();
    let mut bytes = vec![0; pages.len() * PAGE_SIZE];
    load.memory.read_pages(range, &pages, &mut bytes).unwrap();
    for (page, content) in pages.iter().zip(bytes.chunks(PAGE_SIZE)) {
        area[*page as usize * PAGE_SIZE..][..PAGE_SIZE].copy_from_slice(content);
    }
}

fn follow_a_storm(choice: TrackerChoice, kind: TrackerKind, writes: u64, scans_per_check: u64) {
    let mut load = Load::start(&Kind::ALL, AREA_PAGES);
    let mut tracker = arm(load.pid(), load.uffd, load.ranges.clone(), choice).unwrap();
    assert_eq!(tracker.kind(), kind);
    // The load waits for its orders, so this is what it holds.
    let areas = (0..load.ranges.len()).map(|area| load.content(area)).collect();
    tracker.settle();
    let mut copy = Copy { areas, reported: 0, scans: 0, checks: 0 };
    load.storm(std::process::id(), THREADS, writes);
    while !load.is_done() {
        for _ in 0..scans_per_check {
            copy.follow(&load, &mut *tracker);
        }
        copy.check(&load, &mut *tracker);
    }
    assert_eq!(load.answer(), "done");
    copy.check(&load, &mut *tracker);
    println!(
        "{kind}: {} writes, {} scans, {} pages reported, {} whole comparisons",
        THREADS * writes,
        copy.scans,
        copy.reported,
        copy.checks
    );
}

/// Without privileges it is the same code again with another descriptor, so fewer will do.
fn writes(per_thread: u64) -> u64 {
    if rustix::process::geteuid().is_root() { per_thread } else { per_thread / 4 }
}

#[test]
fn write_protection_misses_no_write() {
    if !load::has_write_protection() {
        return;
    }
    follow_a_storm(TrackerChoice::Best, TrackerKind::WriteProtect, writes(700_000), 10);
}

#[test]
fn comparing_misses_no_write() {
    follow_a_storm(TrackerChoice::Compare, TrackerKind::Compare, writes(200_000), 3);
}

/// Both sides of the above, without privileges.
#[test]
fn nor_do_they_without_privileges() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for test in ["write_protection_misses_no_write", "comparing_misses_no_write"] {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", test, "--nocapture"]).uid(65534).gid(65534).current_dir("/");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        print!("unprivileged {text}");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("whole comparisons") || text.contains("skipped"), "{text}");
    }
}
