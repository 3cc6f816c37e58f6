//! How fast pages go into a store and come out again, next to what zstd and BLAKE3 alone do with them. Bytes per second by
//! the clock, and per second that a processor was busy, which is what counts where others use it, too.
//!
//! `cargo run --release -p watari-store --example throughput MiB FILE OR FOLDER...`: the pages are those of these files,
//! each once, and without those of zeros. `/proc/PID/mem` cannot be read from front to back; a guest's memory, programs and
//! texts can.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

use std::collections::HashSet;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use watari_store::Store;
use watari_types::{PAGE_SIZE, Page, PageHash};

const FRAME: usize = 64 * PAGE_SIZE;

/// The different pages of files, until there are enough.
#[derive(Default)]
struct Pages {
    pages: Vec<Page>,
    seen: HashSet<PageHash>,
    most: usize,
}

impl Pages {
    fn add(&mut self, path: &Path) {
        let Ok(kind) = path.symlink_metadata() else { return };
        if kind.is_dir() {
            let mut paths: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths.iter().for_each(|path| self.add(path));
        } else if kind.is_file() && self.pages.len() < self.most {
            for page in fs::read(path).unwrap_or_default().as_chunks::<PAGE_SIZE>().0 {
                let name = PageHash::of(page);
                if self.pages.len() < self.most && !name.is_zero_page() && self.seen.insert(name) {
                    self.pages.push(*page);
                }
            }
        }
    }
}

fn busy() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// The seconds that processors were busy with `work`.
fn measure<T>(what: &str, bytes: usize, work: impl FnOnce() -> T) -> (f64, T) {
    let (began, before) = (Instant::now(), busy());
    let result = work();
    let (took, worked) = (began.elapsed().as_secs_f64(), (busy() - before).as_secs_f64());
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    println!("{what:<36}{:>8.0} MB/s{:>8.0} MB/s of a processor", rate(took), rate(worked));
    (worked, result)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().map_or(256, |mib| mib.parse().unwrap());
    let mut found = Pages { most: mib * 256, ..Pages::default() };
    arguments.for_each(|path| found.add(Path::new(&path)));
    let pages = found.pages;
    let bytes = pages.len() * PAGE_SIZE;
    println!("{} pages", pages.len());
    let (hash_alone, hashes) = measure("BLAKE3 alone, page by page", bytes, || {
        pages.iter().map(PageHash::of).collect::<Vec<PageHash>>()
    });
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let (zstd_alone, frames) = measure("zstd -3 alone, 64 pages at a time", bytes, || {
        let frames = pages.as_flattened().chunks(FRAME);
        frames.map(|frame| zstd.compress(frame).unwrap()).collect::<Vec<_>>()
    });
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (ingest, stats) = measure("ingest: hash, look up, compress, write", bytes, || {
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        pages.iter().for_each(|page| assert!(pack.put(PageHash::of(page), page).unwrap()));
        pack.finish().unwrap()
    });
    println!("{:.1} % of what both alone allow; {stats:?}", (hash_alone + zstd_alone) / ingest * 100.0);
    let mut again = store.new_pack(&store.lease().unwrap()).unwrap();
    measure("put what is there", bytes, || {
        hashes.iter().zip(&pages).for_each(|(hash, page)| assert!(!again.put(*hash, page).unwrap()));
    });
    read(&store, &hashes, bytes);
    let (b3sum, _) = measure("BLAKE3 alone, of all at once", bytes, || {
        black_box(blake3::hash(black_box(pages.as_flattened())))
    });
    let mut unzstd = zstd::bulk::Decompressor::new().unwrap();
    let (unzstd_alone, ()) = measure("zstd -d alone", bytes, || {
        frames.iter().for_each(|frame| drop(black_box(unzstd.decompress(frame, FRAME).unwrap())));
    });
    let (verify, report) = measure("verify", bytes, || store.verify(None, &|_| ()).unwrap());
    assert!(report.damaged.is_empty());
    println!("{:.1} % of what BLAKE3 of all at once allows,", b3sum / verify * 100.0);
    println!("{:.1} % of that and zstd -d,", (b3sum + unzstd_alone) / verify * 100.0);
    println!("{:.1} % of BLAKE3 page by page and zstd -d", (hash_alone + unzstd_alone) / verify * 100.0);
}

fn read(store: &Store, hashes: &[PageHash], bytes: usize) {
    for threads in [1, 2] {
        measure(&format!("read_pages, {threads} threads"), bytes, || {
            store.read_pages((0..).zip(hashes.iter().copied()), threads, &|_, _| Ok(())).unwrap();
        });
    }
    let mut scattered = hashes.to_vec();
    fastrand::Rng::with_seed(1).shuffle(&mut scattered);
    measure("read_pages, scattered", bytes, || {
        store.read_pages((0..).zip(scattered.iter().copied()), 1, &|_, _| Ok(())).unwrap();
    });
    let mut into = [0; PAGE_SIZE];
    measure("read_page, in order", bytes, || {
        hashes.iter().for_each(|hash| store.read_page(hash, &mut into).unwrap());
    });
}
