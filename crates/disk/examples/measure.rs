//! The engine by itself, for `bench/disk`: each command prints one JSON object.
//!
//! `serve RAW BYTES SOCKET [MILLISECONDS]`  serves a new disk until its standard input ends, and seals, reads and
//!                                         publishes it every so often
//! `changed RAW BYTES PAGES RUN`            changes PAGES pages in runs of RUN, and finds and reads them

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use watari_disk::nbd::{Export, Server};
use watari_disk::{Base, Disk, Source, Zeroes};
use watari_types::{Generation, PAGE_SIZE, pages_for};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap();
    match words[..] {
        ["serve", raw, bytes, socket] => serve(raw.as_ref(), number(bytes), socket.as_ref(), None),
        ["serve", raw, bytes, socket, every] => {
            let every = Duration::from_millis(number(every));
            serve(raw.as_ref(), number(bytes), socket.as_ref(), Some(every));
        }
        ["changed", raw, bytes, pages, run] => {
            changed(raw.as_ref(), number(bytes), number(pages) as u32, number(run) as u32);
        }
        _ => println!("see the first lines of crates/disk/examples/measure.rs"),
    }
}

/// Memory of this process in KiB: its own, and what it maps of files.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    ["RssAnon:", "RssFile:"]
        .iter()
        .map(|name| line(name).split_whitespace().next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn serve(raw: &Path, bytes: u64, socket: &Path, every: Option<Duration>) {
    let before = memory_kib();
    let disk = Disk::create(raw, bytes, None).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let export: Arc<dyn Export> = Arc::new(disk.clone());
    let _server = Server::start(listener, BTreeMap::from([("0".to_owned(), export)])).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
    });
    let (mut seals, mut pages) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(every.unwrap_or(Duration::from_millis(20)));
        if every.is_some() {
            let begun = Instant::now();
            let sealed = disk.seal();
            seals.push(begun.elapsed().as_secs_f64() * 1e3);
            pages += sealed.pages().len();
            let mut page = [0; PAGE_SIZE];
            sealed.pages().iter().for_each(|number| sealed.read(number, &mut page).unwrap());
            disk.published(sealed, Generation(seals.len() as u64));
        }
    }
    let memory = memory_kib() - before;
    println!("{}", serde_json::json!({"seal_ms": seals, "pages": pages, "memory_kib": memory}));
}

/// Zeros, all of which were written once.
struct Full;

impl Source for Full {
    fn read(&self, _first: u32, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>> {
        std::iter::once(first..end).collect()
    }
}

fn changed(raw: &Path, bytes: u64, pages: u32, run: u32) {
    let all = pages_for(bytes) as u32;
    let before = memory_kib();
    let disk =
        Disk::create(raw, bytes, Some(Base { source: Arc::new(Full), generation: Generation(0) })).unwrap();
    // All of it has changed once, in eight generations.
    for part in 0..8 {
        disk.write_zeroes(bytes / 8 * part, bytes / 8, Zeroes::Hole).unwrap();
        disk.published(disk.seal(), Generation(part + 1));
    }
    let mut random = 88_172_645_463_325_252u64;
    let mut numbers = std::collections::BTreeSet::new();
    while (numbers.len() as u32) < pages {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let first = (random % u64::from(all / run)) as u32 * run;
        disk.write_at(u64::from(first) * PAGE_SIZE as u64, &vec![7; run as usize * PAGE_SIZE]).unwrap();
        numbers.extend(first..first + run);
    }
    disk.published(disk.seal(), Generation(9));
    let mut runs: Vec<Range<u32>> = Vec::new();
    for page in numbers {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
    let mut buffer = vec![0; 1 << 20];
    let mut read = |runs: &mut dyn Iterator<Item = Range<u32>>| {
        for run in runs {
            for start in run.clone().step_by(256) {
                let into = &mut buffer[..(run.end - start).min(256) as usize * PAGE_SIZE];
                disk.read_at(u64::from(start) * PAGE_SIZE as u64, into).unwrap();
            }
        }
    };
    let (mut found_ms, mut known_ms, mut find_ms) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, and each as often after the other as before it.
    for step in [0, 1, 1, 0].into_iter().cycle().take(60) {
        let begun = Instant::now();
        if step == 0 {
            let found = disk.changed_since(Generation(8)).unwrap();
            find_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            read(&mut found.runs());
            found_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            assert!(found.runs().eq(runs.iter().cloned()), "what was found is not what was changed");
        } else {
            read(&mut runs.iter().cloned());
            known_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let memory = memory_kib() - before;
    println!(
        "{}",
        serde_json::json!({"found_ms": found_ms, "known_ms": known_ms, "find_ms": find_ms, "memory_kib": memory})
    );
}
