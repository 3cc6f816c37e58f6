//! What the snapshots that are kept need at least: every page that any of them holds, once, compressed as a pack's frames of
//! whole pages are. Says so in JSON, with how many pages the newest of them holds. Holds nothing up: if a collection removes
//! meanwhile what it is at, it begins again.
//!
//! `cargo run --release -p watari-store --example needed STORE`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

use std::collections::HashSet;
use std::path::Path;

use parking_lot::Mutex;
use serde_json::{Value, json};
use watari_store::{Error, Store};
use watari_types::{PAGE_SIZE, PageHash, PageTable};

const PAGES_IN_A_FRAME: usize = 64;
const PAGES_AT_ONCE: usize = 256 * PAGES_IN_A_FRAME;
const ZSTD_LEVEL: i32 = 3;

/// What a collection removes meanwhile is not missing the next time.
const TRIES: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: needed STORE")?;
    let store = Store::open_fixed(Path::new(&folder))?;
    let is_moved = |e: &Error| matches!(e, Error::MissingSnapshot { .. } | Error::MissingPage { .. });
    let mut found = needed(&store);
    for _ in 1..TRIES {
        match &found {
            Err(e) if is_moved(e) => found = needed(&store),
            _ => break,
        }
    }
    println!("{}", found?);
    Ok(())
}

fn needed(store: &Store) -> Result<Value, Error> {
    let (mut seen, mut snapshots, mut newest, mut bytes) = (HashSet::new(), 0, 0, 0);
    for machine in store.machines()? {
        for (_, id) in store.refs(machine).list()? {
            let tables = store.page_tables(id)?;
            let names = tables.values().flat_map(|table| table.iter().map(|(_, name)| name));
            let new: Vec<PageHash> = names.filter(|name| seen.insert(*name)).collect();
            for pages in new.chunks(PAGES_AT_ONCE) {
                bytes += compressed(store, pages)?;
            }
            newest = tables.values().map(PageTable::len).sum();
            snapshots += 1;
        }
    }
    Ok(json!({ "snapshots": snapshots, "pages": seen.len(), "bytes": bytes, "pages_of_newest": newest }))
}

fn compressed(store: &Store, pages: &[PageHash]) -> Result<usize, Error> {
    let content = Mutex::new(vec![0; pages.len() * PAGE_SIZE]);
    let put = |first: u32, pages: &[u8]| {
        content.lock()[first as usize * PAGE_SIZE..][..pages.len()].copy_from_slice(pages);
        Ok(())
    };
    store.read_pages((0..).zip(pages.iter().copied()), 1, &put)?;
    let content = content.into_inner();
    let frames = content.chunks(PAGES_IN_A_FRAME * PAGE_SIZE);
    Ok(frames.map(|frame| zstd::bulk::compress(frame, ZSTD_LEVEL).unwrap().len()).sum())
}
