//! Load for benchmarks: memory and disk change at given rates while a counter counts as fast as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::options::Options;
use crate::pace::Pace;
use crate::page::{PAGE, Page, Random, WORDS};

const TICK: Duration = Duration::from_millis(10);
/// One word in so many is random, the others follow from it: real data shrinks to about a third.
const RANDOM_EVERY: usize = 4;

/// Options: `mem-rate` and `disk-rate` in MB/s (20 and 5), `mem` and `disk` how much of each is written to
/// (64M each). Prints `WORK n total=t` each second: how far the counter came in it, and in all.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let memory = options.bytes("mem")?.unwrap_or(64 << 20);
    let memory_pace = Pace::new(options.number("mem-rate", 20.0)?);
    let disk_bytes = options.bytes("disk")?.unwrap_or(64 << 20);
    let disk_pace = Pace::new(options.number("disk-rate", 5.0)?);
    if memory > 0 {
        thread::spawn(move || dirty_memory(memory, memory_pace));
    }
    if let Some(disk) = Disk::open()?.filter(|disk| disk.pages() > 0) {
        thread::spawn(move || dirty_disk(&disk, disk_bytes, disk_pace));
    }
    count()
}

fn count() -> Result<(), String> {
    let total = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&total);
    thread::spawn(move || {
        let mut random = Random::new(1);
        loop {
            // Arithmetic that cannot be skipped, in pieces of some microseconds.
            std::hint::black_box((0..1000).fold(0u64, |sum, _| sum ^ random.next()));
            counting.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    let mut next = Instant::now();
    loop {
        next += Duration::from_secs(1);
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = total.load(Ordering::Relaxed);
        println!("WORK {} total={now}", now - before);
        before = now;
    }
}

fn dirty_memory(bytes: u64, mut pace: Pace) {
    let count = (bytes as usize / PAGE).max(1);
    let mut random = Random::new(2);
    let mut pages: Vec<Page> = Vec::with_capacity(count);
    for _ in 0..count {
        pages.push(Page::ZERO);
    }
    for page in &mut pages {
        fill(page, &mut random);
    }
    loop {
        for _ in 0..pace.due(PAGE) {
            let at = random.below(count);
            fill(&mut pages[at], &mut random);
        }
        thread::sleep(TICK);
    }
}

fn dirty_disk(disk: &Disk, bytes: u64, mut pace: Pace) {
    let count = (bytes / PAGE as u64).clamp(1, disk.pages());
    let mut random = Random::new(3);
    let mut page = Page::ZERO;
    loop {
        for _ in 0..pace.due(PAGE) {
            fill(&mut page, &mut random);
            let at = random.below(count as usize) as u64;
            if let Err(error) = disk.write(at, &page) {
                println!("LOAD ERROR {error}");
                return;
            }
        }
        thread::sleep(TICK);
    }
}

fn fill(page: &mut Page, random: &mut Random) {
    for at in (0..WORDS).step_by(RANDOM_EVERY) {
        let word = random.next();
        for (offset, slot) in page.0[at..at + RANDOM_EVERY].iter_mut().enumerate() {
            *slot = if offset == 0 { word } else { offset as u64 };
        }
    }
}
