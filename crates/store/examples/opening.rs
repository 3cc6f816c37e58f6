//! What it takes to open a large store, and to find pages in it: a store of many snapshots is made, and opened by
//! processes that do nothing else; then again once its packs have been merged.
//!
//! `cargo run --release -p watari-store --example opening FOLDER [SNAPSHOTS] [PAGES IN EACH]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

mod common;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{MACHINE, draft};
use watari_store::{NodeKey, Regions, Store};
use watari_types::{Generation, PAGE_SIZE, Page, PageHash, Region, RegionName, SnapshotId};

const OPENINGS: usize = 7;
const LOOKUPS: u32 = 200_000;

/// Nearly empty, so that a store of many is made in a minute.
fn page(number: u32) -> Page {
    let mut page = [0; PAGE_SIZE];
    page[..4].copy_from_slice(&number.to_le_bytes());
    page
}

fn name(number: u32) -> PageHash {
    PageHash::of(&page(number))
}

fn milliseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed().as_secs_f64() * 1e3, result)
}

/// The time that a processor was busy with this process, in milliseconds. It says more where others use it, too.
fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize, default| arguments.get(at).map_or(default, |number| number.parse().unwrap());
    match arguments.first().map(String::as_str) {
        Some("--open") => open(Path::new(&arguments[1]), argument(2, 0)),
        Some("--find") => find(Path::new(&arguments[1]), argument(2, 0)),
        Some(folder) => measure(Path::new(folder), argument(1, 1000), argument(2, 10_000)),
        None => println!("in which folder?"),
    }
}

fn measure(folder: &Path, snapshots: u32, pages: u32) {
    let (took, ()) = milliseconds(|| {
        // Written down by then, and not again before there is this much more.
        make(folder, snapshots * 63 / 64, pages, None);
        drop(Store::open(folder).unwrap());
        let begun = Store::open(folder).unwrap().refs(MACHINE).list().unwrap();
        make(folder, snapshots, pages, begun.last().copied());
    });
    let all = snapshots * pages;
    println!("{snapshots} snapshots of {pages} pages, made in {:.0} s", took / 1e3);
    println!("- with an index that lacks a sixty-fourth");
    (0..OPENINGS).for_each(|_| in_process("--open", folder, all));
    println!("- without, three times");
    for _ in 0..3 {
        let _ = std::fs::remove_file(folder.join("index"));
        in_process("--open", folder, all);
    }
    println!("- with one that was just written");
    (0..OPENINGS).for_each(|_| in_process("--open", folder, all));
    in_process("--find", folder, all);
    let store = Store::open(folder).unwrap();
    let packs = store.pack_count();
    let (took, _) = milliseconds(|| common::collect(&store));
    println!("- collected in {:.1} s: {packs} packs become {}", took / 1e3, store.pack_count());
    drop(store);
    (0..OPENINGS).for_each(|_| in_process("--open", folder, all));
    in_process("--find", folder, all);
}

fn in_process(what: &str, folder: &Path, pages: u32) {
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).arg(what).arg(folder).arg(pages.to_string()).status();
    assert!(status.unwrap().success());
}

/// Bytes of memory this process has of its own, and the most it had.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    (field("RssAnon:"), field("VmHWM:"))
}

fn open(folder: &Path, pages: u32) {
    let ((before, _), idle) = (memory(), busy());
    let (took, store) = milliseconds(|| Store::open(folder).unwrap());
    let ((after, most), worked) = (memory(), busy() - idle);
    let (first, found) = milliseconds(|| store.contains(&name(pages / 2)));
    assert!(found);
    let per_page = |bytes: u64| bytes as f64 / f64::from(pages);
    println!(
        "opened in {took:.0} ms (busy {worked:.0} ms), the first page found in {first:.2} ms, {:.1} bytes of memory per page, {:.1} meanwhile",
        per_page(after - before),
        per_page(most - before)
    );
}

fn find(folder: &Path, pages: u32) {
    let store = Store::open(folder).unwrap();
    let there: Vec<PageHash> = (pages / 2..).take(LOOKUPS as usize).map(name).collect();
    let step = (pages / LOOKUPS).max(1) | 1;
    let anywhere: Vec<PageHash> = (0..LOOKUPS)
        .map(|at| name((u64::from(at) * 7_919 * u64::from(step) % u64::from(pages)) as u32))
        .collect();
    let nowhere: Vec<PageHash> = (0..LOOKUPS).map(|at| name(u32::MAX - at)).collect();
    let sets = [
        ("there, in order, first", &there, true),
        ("there, in order", &there, true),
        ("there, anywhere, first", &anywhere, true),
        ("there, anywhere", &anywhere, true),
        ("not there", &nowhere, false),
    ];
    for (what, names, expected) in sets {
        let (took, found) =
            milliseconds(|| names.iter().filter(|name| black_box(store.contains(name))).count());
        assert_eq!(found, if expected { names.len() } else { 0 });
        println!("{what}: {:.2} µs for each page", took * 1e3 / names.len() as f64);
    }
    let (took, ()) = milliseconds(|| {
        store.read_pages((0..).zip(there.iter().copied()), 1, &|_, _| Ok(())).unwrap();
    });
    println!("read in order: {:.2} µs for each page", took * 1e3 / there.len() as f64);
    let (after, _) = memory();
    println!("{:.1} bytes of memory per page by then", after as f64 / f64::from(pages));
}

/// A machine whose disk grows with every snapshot, from one on that is there up to so many.
fn make(folder: &Path, snapshots: u32, pages: u32, from: Option<(Generation, SnapshotId)>) {
    let store = Store::open(folder).unwrap();
    let key = NodeKey::from_seed([1; 32]);
    let region = Region { name: RegionName::disk(0), bytes: 1 << 40 };
    let mut held = from.map_or(Regions::default(), |(_, id)| store.regions(id).unwrap());
    let mut parent = from.map(|(_, id)| id);
    let first = from.map_or(1, |(generation, _)| generation.0 as u32 + 1);
    for generation in first..=snapshots {
        let lease = store.lease().unwrap();
        let mut pack = store.new_pack(&lease).unwrap();
        let numbers = (generation - 1) * pages..generation * pages;
        let mut changed = Vec::new();
        for number in numbers {
            let page = page(number);
            let name = PageHash::of(&page);
            pack.put(name, &page).unwrap();
            changed.push((number, name));
        }
        let delta = [(region.name.clone(), changed.into_iter().collect())].into();
        held = held.after(&delta, std::slice::from_ref(&region));
        pack.put_trees(&mut held, std::slice::from_ref(&region)).unwrap();
        pack.finish().unwrap();
        let draft = draft(u64::from(generation), parent, std::slice::from_ref(&region));
        let (id, _) = store.publish(&draft, &delta, &mut held, None, &key, &lease).unwrap();
        store.refs(MACHINE).add(Generation(u64::from(generation)), id, &lease).unwrap();
        parent = Some(id);
    }
}
