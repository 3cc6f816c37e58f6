//! Stamps on every page of memory and disk, checked for ever against tables of what they must be.
//!
//! A stamp says where it is and which write put it there; everything else on the page follows from that. Each
//! disk write is paired with a memory write of the same number, and the tables are in memory: a snapshot whose
//! memory and disk are not of the same instant has a disk page that is older or newer than its table says.
//!
//! ```text
//! word 0  magic     word 1  what it is on (memory 0, disk 1)
//! word 2  page      word 3  number of the write; 0 before the first
//! word 4… filling that follows from words 1–3      last word: their sum
//! ```

use std::thread;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::options::Options;
use crate::pace::Pace;
use crate::page::{PAGE, Page, Random, WORDS, mix};

const MAGIC: u64 = u64::from_le_bytes(*b"WATARI01");
/// How many pages are checked between looks at the clock.
const CHECK_BATCH: usize = 64;
const IDLE: Duration = Duration::from_millis(5);
/// One filling word in so many is random, so that snapshots of stamps stay small.
const RANDOM_EVERY: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Medium {
    Memory = 0,
    Disk = 1,
}

/// Options: `mem` (bytes, default 60 % of what is free) and `disk` (bytes, default all of it) say how much is
/// stamped, `mem-rate` and `disk-rate` (MB/s, 10 and 2) how fast, `check-rate` (MB/s, 0 for as fast as
/// possible) how fast the checks are. Prints `STAMP ready`, then a line for each complete check of everything,
/// and `STAMP ERROR` at once for each page that is wrong.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut stamper = Stamper::new(options)?;
    let mut memory_pace = Pace::new(options.number("mem-rate", 10.0)?);
    let mut disk_pace = Pace::new(options.number("disk-rate", 2.0)?);
    let check_rate = options.number("check-rate", 0.0)?;
    let mut check_pace = Pace::new(check_rate);
    println!("STAMP ready memory_pages={} disk_pages={}", stamper.memory.len(), stamper.disk_table.len());
    loop {
        for _ in 0..disk_pace.due(PAGE) {
            stamper.write_both()?;
        }
        for _ in 0..memory_pace.due(PAGE) {
            stamper.write_memory();
        }
        let checks = if check_rate == 0.0 { CHECK_BATCH } else { check_pace.due(PAGE) };
        for _ in 0..checks {
            stamper.check_next()?;
        }
        if checks == 0 {
            thread::sleep(IDLE);
        }
    }
}

struct Stamper {
    memory: Vec<Page>,
    memory_table: Vec<u64>,
    disk: Option<Disk>,
    disk_table: Vec<u64>,
    random: Random,
    sequence: u64,
    /// Which page is checked next: memory first, then disk.
    cursor: usize,
    pass: u64,
    errors: u64,
    pass_begun: Instant,
    scratch: Box<Page>,
}

impl Stamper {
    /// Stamps everything once.
    fn new(options: &Options) -> Result<Stamper, String> {
        let memory_bytes = match options.bytes("mem")? {
            Some(bytes) => bytes,
            None => free_memory()? * 6 / 10,
        };
        let disk = Disk::open()?;
        let disk_pages = disk.as_ref().map_or(0, Disk::pages);
        let disk_pages =
            options.bytes("disk")?.map_or(disk_pages, |bytes| disk_pages.min(bytes / PAGE as u64));
        let memory_pages = memory_bytes as usize / PAGE;
        let mut stamper = Stamper {
            memory: Vec::with_capacity(memory_pages),
            memory_table: vec![0; memory_pages],
            disk,
            disk_table: vec![0; disk_pages as usize],
            random: Random::new(7),
            sequence: 0,
            cursor: 0,
            pass: 0,
            errors: 0,
            pass_begun: Instant::now(),
            scratch: Box::new(Page::ZERO),
        };
        if memory_pages == 0 {
            return Err(String::from("there is no memory to stamp"));
        }
        for page in 0..memory_pages {
            stamper.memory.push(Page::ZERO);
            stamp(&mut stamper.memory[page], Medium::Memory, page, 0);
        }
        for page in 0..stamper.disk_table.len() {
            stamper.write_disk(page, 0)?;
        }
        Ok(stamper)
    }

    /// One write of memory.
    fn write_memory(&mut self) {
        self.sequence += 1;
        let page = self.random.below(self.memory.len());
        stamp(&mut self.memory[page], Medium::Memory, page, self.sequence);
        self.memory_table[page] = self.sequence;
    }

    /// One write of memory and one of the disk, with the same number.
    fn write_both(&mut self) -> Result<(), String> {
        if self.disk_table.is_empty() {
            return Ok(());
        }
        self.write_memory();
        let page = self.random.below(self.disk_table.len());
        self.write_disk(page, self.sequence)
    }

    /// The table follows the disk only when the disk has answered.
    fn write_disk(&mut self, page: usize, sequence: u64) -> Result<(), String> {
        let Some(disk) = &self.disk else { return Ok(()) };
        stamp(&mut self.scratch, Medium::Disk, page, sequence);
        disk.write(page as u64, &self.scratch)?;
        self.disk_table[page] = sequence;
        Ok(())
    }

    fn check_next(&mut self) -> Result<(), String> {
        let in_memory = self.memory.len();
        let problem = if self.cursor < in_memory {
            let page = self.cursor;
            problem(&self.memory[page], Medium::Memory, page, self.memory_table[page])
        } else {
            let page = self.cursor - in_memory;
            match &self.disk {
                Some(disk) if page < self.disk_table.len() => {
                    disk.read(page as u64, &mut self.scratch)?;
                    problem(&self.scratch, Medium::Disk, page, self.disk_table[page])
                }
                _ => None,
            }
        };
        if let Some(problem) = problem {
            self.errors += 1;
            println!("STAMP ERROR {problem}");
        }
        self.cursor += 1;
        if self.cursor >= in_memory + self.disk_table.len() {
            self.finish_pass()?;
        }
        Ok(())
    }

    fn finish_pass(&mut self) -> Result<(), String> {
        self.cursor = 0;
        self.pass += 1;
        if let Some(disk) = &self.disk {
            disk.flush()?;
        }
        println!(
            "STAMP pass={} seq={} errors={} ms={}",
            self.pass,
            self.sequence,
            self.errors,
            self.pass_begun.elapsed().as_millis()
        );
        self.pass_begun = Instant::now();
        Ok(())
    }
}

fn stamp(page: &mut Page, medium: Medium, index: usize, sequence: u64) {
    let words = &mut page.0;
    words[..4].copy_from_slice(&[MAGIC, medium as u64, index as u64, sequence]);
    let mut sum = mix(mix(mix(medium as u64) ^ index as u64) ^ sequence);
    let mut filling = sum;
    for (at, word) in words[4..WORDS - 1].iter_mut().enumerate() {
        if at % RANDOM_EVERY == 0 {
            filling = mix(filling);
        }
        *word = filling;
        sum = sum.wrapping_add(filling);
    }
    words[WORDS - 1] = sum;
}

/// What is wrong with a page, if anything is.
fn problem(found: &Page, medium: Medium, index: usize, sequence: u64) -> Option<String> {
    let matches = |index, sequence| {
        let mut expected = Page::ZERO;
        stamp(&mut expected, medium, index, sequence);
        found.0 == expected.0
    };
    if matches(index, sequence) {
        return None;
    }
    let name = if medium == Medium::Memory { "memory" } else { "disk" };
    let [magic, on, at, number] = found.0[..4] else { return None };
    let whole = magic == MAGIC && on == medium as u64 && matches(at as usize, number);
    let what = if whole {
        format!("a whole stamp of page {at}, number {number}")
    } else {
        format!("no whole stamp (words {magic:x} {on:x} {at:x} {number:x})")
    };
    Some(format!("{name} page={index} expected number {sequence}, found {what}"))
}

fn free_memory() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map(|n| n << 10).ok_or_else(|| String::from("/proc/meminfo has no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_stamp_that_was_written_is_right() {
        let mut page = Page::ZERO;
        stamp(&mut page, Medium::Memory, 7, 42);
        assert_eq!(problem(&page, Medium::Memory, 7, 42), None);
        let older = problem(&page, Medium::Memory, 7, 43).unwrap();
        assert!(older.contains("a whole stamp of page 7, number 42"), "{older}");
        assert!(problem(&page, Medium::Disk, 7, 42).is_some());
        for word in 0..WORDS {
            page.0[word] ^= 1 << 17;
            let torn = problem(&page, Medium::Memory, 7, 42).unwrap();
            assert!(torn.contains("no whole stamp"), "{word}: {torn}");
            page.0[word] ^= 1 << 17;
        }
    }
}
