//! Whether the newest snapshot is read as fast after many as after few: a machine that works is snapshotted, most snapshots
//! expire, garbage is collected now and then; and at the end the newest is read in turn with the tenth, out of the store as it
//! was then.
//!
//! `cargo run --release -p watari-store --example restoring FOLDER [SNAPSHOTS] [PAGES CHANGED IN EACH]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use common::{MACHINE, Random, draft};
use watari_store::{NodeKey, Regions, Store};
use watari_types::{Delta, Generation, PAGE_SIZE, Page, PageHash, Region, RegionName, SnapshotId};

/// 512 MiB.
const PAGES: u32 = 1 << 17;
const EARLY: u64 = 10;
/// What is kept: the newest, and every so manieth.
const KEPT: u64 = 100;
const EVERY: u64 = 12;
/// Snapshots from one collection to the next.
const ROUND: u64 = 12;
const ROUNDS: usize = 7;

/// What a page holds: how often it became another, and how often a little of it changed since.
#[derive(Clone, Copy, Default)]
struct Version {
    whole: u32,
    little: u32,
}

impl Version {
    /// About a third of it does not compress.
    fn page(self, index: u32) -> Page {
        let mut page = [0; PAGE_SIZE];
        let mut random = Random(u64::from(index) << 32 | u64::from(self.whole) << 1 | 1);
        for bytes in page[..1400].as_chunks_mut::<4>().0 {
            *bytes = random.below(u32::MAX).to_le_bytes();
        }
        page[2000..2004].copy_from_slice(&self.little.to_le_bytes());
        page
    }
}

fn main() {
    let argument =
        |at: usize, default| std::env::args().nth(at).map_or(default, |number| number.parse().unwrap());
    let Some(folder) = std::env::args().nth(1) else { return println!("in which folder?") };
    let (folder, early) = (Path::new(&folder).join("all"), Path::new(&folder).join("early"));
    let (snapshots, changed) = (argument(2, 1000), argument(3, 1500));
    let mut history = History::new(&folder);
    history.take((0..PAGES).collect());
    for generation in 2..=snapshots {
        let pages = history.busy_pages(changed as u32);
        history.take(pages);
        if generation == EARLY {
            // Files are written once, so a link is as good as a copy.
            assert!(Command::new("cp").arg("-al").args([&folder, &early]).status().unwrap().success());
        }
        if generation % ROUND == 0 {
            history.collect();
        }
    }
    history.collect();
    let newest = history.parent.unwrap();
    drop(history);
    let tenth = Store::open(&early).unwrap().refs(MACHINE).get(Generation(EARLY)).unwrap().unwrap();
    let mut took: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        took[0].push(read(&early, tenth));
        took[1].push(read(&folder, newest));
    }
    let [before, after] = took.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    });
    println!(
        "read in {before:.0} ms after {EARLY}, in {after:.0} ms after {snapshots}: {:.2} x",
        after / before
    );
}

struct History {
    store: Store,
    random: Random,
    held: Regions,
    versions: Vec<Version>,
    parent: Option<SnapshotId>,
    generation: u64,
}

impl History {
    fn new(folder: &Path) -> History {
        History {
            store: Store::open(folder).unwrap(),
            random: Random(88_172_645_463_325_252),
            held: Regions::default(),
            versions: vec![Version::default(); PAGES as usize],
            parent: None,
            generation: 0,
        }
    }

    /// Runs of pages, four of five of them where the machine works at the time.
    fn busy_pages(&mut self, count: u32) -> Vec<u32> {
        let mut pages = std::collections::BTreeSet::new();
        let place = self.generation as u32 / 50 * (PAGES / 25) % PAGES;
        while (pages.len() as u32) < count {
            let first = match self.random.below(5) {
                0 => self.random.below(PAGES),
                _ => place + self.random.below(PAGES / 20),
            };
            pages.extend((first..first + 1 + self.random.below(8)).map(|page| page % PAGES));
        }
        pages.into_iter().collect()
    }

    /// Changes these pages, half of them a little, and takes a snapshot.
    fn take(&mut self, pages: Vec<u32>) {
        self.generation += 1;
        let lease = self.store.lease().unwrap();
        let mut pack = self.store.new_pack(&lease).unwrap();
        let mut delta = BTreeMap::new();
        for index in pages {
            let version = &mut self.versions[index as usize];
            let former = PageHash::of(&version.page(index));
            match self.random.below(2) {
                0 => *version = Version { whole: version.whole + 1, little: 0 },
                _ => version.little += 1,
            }
            let page = version.page(index);
            let name = PageHash::of(&page);
            match self.generation {
                1 => pack.put(name, &page).unwrap(),
                _ => pack.put_changed(name, &page, &former).unwrap(),
            };
            delta.insert(index, name);
        }
        let region =
            Region { name: RegionName::ram("m0").unwrap(), bytes: u64::from(PAGES) * PAGE_SIZE as u64 };
        let delta = Delta::from([(region.name.clone(), delta.into_iter().collect())]);
        self.held = self.held.clone().after(&delta, std::slice::from_ref(&region));
        pack.put_trees(&mut self.held, std::slice::from_ref(&region)).unwrap();
        pack.finish().unwrap();
        let draft = draft(self.generation, self.parent, std::slice::from_ref(&region));
        let key = NodeKey::from_seed([1; 32]);
        let (id, _) = self.store.publish(&draft, &delta, &mut self.held, None, &key, &lease).unwrap();
        self.store.refs(MACHINE).add(Generation(self.generation), id, &lease).unwrap();
        self.parent = Some(id);
    }

    fn collect(&self) {
        let refs = self.store.refs(MACHINE);
        for (generation, _) in refs.list().unwrap() {
            if generation.0 + KEPT <= self.generation && generation.0 % EVERY != 0 {
                refs.remove(generation).unwrap();
            }
        }
        let begun = Instant::now();
        let done = common::collect(&self.store);
        println!(
            "after {}: collected in {:.1} s, {} MiB written, {} packs, {} MiB",
            self.generation,
            begun.elapsed().as_secs_f64(),
            done.written_bytes >> 20,
            self.store.pack_count(),
            self.store.bytes().unwrap() >> 20
        );
    }
}

/// Milliseconds for all pages of a snapshot, as a restore reads them.
fn read(folder: &Path, id: SnapshotId) -> f64 {
    let store = Store::open(folder).unwrap();
    let (begun, bytes) = (Instant::now(), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let tables = store.page_tables(id).unwrap();
    for table in tables.values() {
        store
            .read_pages(table.iter(), threads, &|_, content| {
                bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(bytes.into_inner(), u64::from(PAGES) * PAGE_SIZE as u64);
    begun.elapsed().as_secs_f64() * 1e3
}
