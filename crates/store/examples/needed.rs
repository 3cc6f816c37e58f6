//! What the snapshots that are kept need at least: every page that any of them holds, once, compressed as a pack's frames of
//! whole pages are. Says so in JSON, with how many pages the newest of them holds.
//!
//! `cargo run --release -p watari-store --example needed STORE`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

use std::collections::HashSet;
use std::path::Path;

use parking_lot::Mutex;
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageHash};

const PAGES_IN_A_FRAME: usize = 64;
const PAGES_AT_ONCE: usize = 256 * PAGES_IN_A_FRAME;
const ZSTD_LEVEL: i32 = 3;

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let store = Store::open(Path::new(&folder)).unwrap();
    // What is there now stays until it is read.
    let _lease = store.lease().unwrap();
    let (mut seen, mut snapshots, mut newest, mut bytes) = (HashSet::new(), 0, 0, 0);
    for machine in store.machines().unwrap() {
        for (_, id) in store.refs(machine).list().unwrap() {
            let tables = store.page_tables(id).unwrap();
            let names = tables.values().flat_map(|table| table.iter().map(|(_, name)| name));
            let new: Vec<PageHash> =
                names.filter(|name| !name.is_zero_page() && seen.insert(*name)).collect();
            bytes += new.chunks(PAGES_AT_ONCE).map(|pages| compressed(&store, pages)).sum::<usize>();
            newest = tables.values().map(|table| table.iter().count()).sum();
            snapshots += 1;
        }
    }
    let (pages, bytes) = (seen.len(), bytes);
    println!(
        "{}",
        serde_json::json!({ "snapshots": snapshots, "pages": pages, "bytes": bytes, "pages_of_newest": newest })
    );
}

fn compressed(store: &Store, pages: &[PageHash]) -> usize {
    let content = Mutex::new(vec![0; pages.len() * PAGE_SIZE]);
    let put = |first: u32, pages: &[u8]| {
        content.lock()[first as usize * PAGE_SIZE..][..pages.len()].copy_from_slice(pages);
        Ok(())
    };
    store.read_pages((0..).zip(pages.iter().copied()), 1, &put).unwrap();
    let content = content.into_inner();
    let frames = content.chunks(PAGES_IN_A_FRAME * PAGE_SIZE);
    frames.map(|frame| zstd::bulk::compress(frame, ZSTD_LEVEL).unwrap().len()).sum()
}
