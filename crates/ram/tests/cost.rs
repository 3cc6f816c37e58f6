//! What tracking costs per GiB, for `docs/decisions/0001-tracking-written-pages.md`:
//! `cargo test -p watari-ram --test cost -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod load;

use std::time::Instant;

use load::{Kind, Load};
use watari_ram::{Backing, Range, Tracker, TrackerChoice, arm};
use watari_types::{PAGE_SIZE, PageSet};

const GIB_PAGES: usize = (1 << 30) / PAGE_SIZE;
const WRITES: usize = 2600;

#[test]
fn load_process() {
    load::serve_if_asked();
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("  {what}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn scan(tracker: &mut dyn Tracker) -> PageSet {
    let mut sets = [PageSet::new()];
    tracker.scan(&mut sets).unwrap();
    let [set] = sets;
    set
}

fn scatter_writes(load: &mut Load, round: usize) {
    for write in 0..WRITES {
        load.ask(&format!("store 0 {} {round}", (write * 7919 + round) % GIB_PAGES));
    }
}

#[test]
#[ignore = "measures, and needs 2 GiB of memory"]
fn one_gib() {
    for (kind, choice) in [
        (Kind::SharedMemfd, TrackerChoice::Best),
        (Kind::PrivateMemfd, TrackerChoice::Best),
        (Kind::Anonymous, TrackerChoice::Best),
        (Kind::SharedMemfd, TrackerChoice::Compare),
    ] {
        // Huge pages for anonymous memory only: a shared one is taken apart at its first write, which is not the rule.
        let mut load = match kind {
            Kind::Anonymous => Load::start(&[kind], GIB_PAGES),
            _ => Load::start_small(&[kind], GIB_PAGES),
        };
        load.ask(&format!("fill 0 {GIB_PAGES}"));
        println!("1 GiB, {kind:?}, {choice:?}");
        let mut tracker = timed("arm", || arm(load.pid(), load.uffd, load.ranges.clone(), choice)).unwrap();
        tracker.settle();
        scatter_writes(&mut load, 1);
        timed("first scan", || scan(&mut *tracker));
        tracker.settle();
        timed("scan, nothing written", || scan(&mut *tracker));
        scatter_writes(&mut load, 2);
        let written = timed("scan, 2,600 scattered writes", || scan(&mut *tracker));
        read_both_ways(&load, &written);
        load.ask("drop 0 1000 512");
        let dropped = timed("scan, 512 pages dropped", || scan(&mut *tracker));
        println!("  ({} and {} pages reported)", written.len(), dropped.len());
    }
}

fn read_both_ways(load: &Load, written: &PageSet) {
    let pages: Vec<u32> = written.iter().collect();
    let mut bytes = vec![1; pages.len() * PAGE_SIZE];
    let range = &load.ranges[0];
    if matches!(range.backing, Backing::Shared(_)) {
        timed("reading them through the file", || load.memory.read_pages(range, &pages, &mut bytes)).unwrap();
    }
    let plain = Range { backing: Backing::Anonymous, ..range.clone() };
    timed("reading them through the process", || load.memory.read_pages(&plain, &pages, &mut bytes)).unwrap();
}
