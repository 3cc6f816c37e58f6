//! What a long history costs besides the pages themselves: manifests with their lists of what changed, and trees; and how
//! long it takes to read what the newest snapshot holds; then, what collecting garbage costs, and leaves, once only every
//! tenth snapshot is kept.
//!
//! `cargo run --release -p watari-store --example history [SNAPSHOTS] [PAGES CHANGED IN EACH]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::{MACHINE, Random, draft};
use watari_store::{NodeKey, Regions, Store};
use watari_types::{Delta, Generation, PAGE_SIZE, Page, PageHash, Region, RegionName};

/// 1 GiB of memory, and a disk of 8 GiB a quarter of which is in use.
const RAM: u32 = 1 << 18;
const DISK: u32 = 1 << 21;

fn page(number: u32) -> Page {
    let mut page = [0; PAGE_SIZE];
    page[..4].copy_from_slice(&number.to_le_bytes());
    page
}

/// Runs of one to eight pages; four of five in a twentieth of the region.
fn changes(random: &mut Random, pages: u32, count: u32, number: &mut u32) -> BTreeMap<u32, u32> {
    let mut changed = BTreeMap::new();
    while (changed.len() as u32) < count {
        let within = if random.below(5) == 0 { pages } else { pages / 20 };
        let first = random.below(within);
        for page in first..(first + 1 + random.below(8)).min(pages) {
            *number += 1;
            changed.insert(page, *number);
        }
    }
    changed
}

fn main() {
    let argument =
        |at: usize, default| std::env::args().nth(at).map_or(default, |number| number.parse().unwrap());
    let (snapshots, changed) = (argument(1, 300), argument(2, 1500));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = NodeKey::from_seed([1; 32]);
    let region = |name, pages: u32| Region { name, bytes: u64::from(pages) * PAGE_SIZE as u64 };
    let regions = [region(RegionName::ram("m0").unwrap(), RAM), region(RegionName::disk(0), DISK)];
    let mut held = Regions::default();
    let (mut random, mut number, mut parent) = (Random(88_172_645_463_325_252), 0, None);
    let (mut trees, mut manifests, mut slowest) = (Vec::new(), Vec::new(), 0.0_f64);
    for generation in 1..=u64::from(snapshots) {
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        let mut delta = Delta::new();
        for (region, pages, in_use, share) in [(&regions[0], RAM, RAM, 1), (&regions[1], DISK, DISK / 4, 3)] {
            let what = match generation {
                1 => (0..in_use).map(|page| (page, page | 1 << 31)).collect(),
                _ => changes(&mut random, pages, changed / share, &mut number),
            };
            for number in what.values() {
                pack.put(PageHash::of(&page(*number)), &page(*number)).unwrap();
            }
            let name = |(index, number): (&u32, &u32)| (*index, PageHash::of(&page(*number)));
            delta.insert(region.name.clone(), what.iter().map(name).collect());
        }
        pack.finish().unwrap();
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        held = held.after(&delta, &regions);
        let begun = Instant::now();
        pack.put_trees(&mut held, &regions).unwrap();
        let stored = pack.finish().unwrap().stored_bytes;
        if stored > 0 {
            trees.push((stored, begun.elapsed().as_secs_f64() * 1e3));
        }
        let draft = draft(generation, parent, &regions);
        let lease = store.lease().unwrap();
        let (id, bytes) = store.publish(&draft, &delta, &mut held, None, &key, &lease).unwrap();
        store.refs(MACHINE).add(Generation(generation), id, &lease).unwrap();
        manifests.push(bytes);
        parent = Some(id);
        if [1, 10].contains(&generation) || generation + 33 >= u64::from(snapshots) {
            let reopened = Store::open(folder.path()).unwrap();
            let begun = Instant::now();
            let read = reopened.page_tables(id).unwrap();
            let took = begun.elapsed().as_secs_f64() * 1e3;
            assert!(read.iter().all(|(name, table)| table.differing(&held.tables()[name]).is_empty()));
            match generation {
                1 | 10 => println!("after {generation} snapshots it is read in {took:.0} ms"),
                _ => slowest = slowest.max(took),
            }
        }
    }
    println!("each of the last 34 of {snapshots} is read in at most {slowest:.0} ms");
    let later =
        |of: &[(u64, f64)]| (of.iter().map(|t| t.0).sum::<u64>(), of.iter().map(|t| t.1).fold(0.0, f64::max));
    let ((first, first_ms), (bytes, ms)) = (later(&trees[..1]), later(&trees[1..]));
    println!(
        "trees: at first {first} bytes ({first_ms:.0} ms), then {} times, at most {ms:.0} ms",
        trees.len() - 1
    );
    let each = |sum: u64| sum / u64::from(snapshots - 1);
    println!(
        "per snapshot: {} bytes of trees, {} of manifests",
        each(bytes),
        each(manifests[1..].iter().sum())
    );
    collect(&store, snapshots);
}

fn collect(store: &Store, snapshots: u32) {
    let tell = |what: &str| {
        let (begun, packs, before) = (Instant::now(), store.pack_count(), store.bytes().unwrap());
        let done = common::collect(store);
        let now = store.bytes().unwrap();
        println!(
            "{what}: {:.1} s, {packs} packs become {}, {before} bytes {now}, {} written",
            begun.elapsed().as_secs_f64(),
            store.pack_count(),
            done.written_bytes
        );
    };
    tell("garbage collected with all needed");
    for generation in (1..u64::from(snapshots)).filter(|generation| generation % 10 != 0) {
        store.refs(MACHINE).remove(Generation(generation)).unwrap();
    }
    tell("every tenth kept");
    tell("and again");
}
