//! How fast pages go into a store and come out again, next to what zstd alone does with them on one core.
//!
//! `cargo run --release -p watari-store --example throughput [MiB]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement to be read")]

use std::time::Instant;

use watari_store::Store;
use watari_types::{PAGE_SIZE, Page, PageHash};

/// Pages that compress about threefold, each different from all others.
fn page(number: u32) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut noise = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    for piece in page.as_chunks_mut::<256>().0 {
        noise.fill(&mut piece[..80]);
    }
    page
}

fn measure<T>(what: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    println!("{what:<28}{:>8.0} MB/s", bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
    result
}

fn main() {
    let mib: u32 = std::env::args().nth(1).map_or(256, |mib| mib.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let pages: Vec<Page> = (0..mib * 256).map(page).collect();
    let bytes = pages.len() * PAGE_SIZE;
    let hashes: Vec<PageHash> = measure("hash", bytes, || pages.iter().map(PageHash::of).collect());
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    measure("zstd -3 alone", bytes, || {
        pages.as_flattened().chunks(64 * PAGE_SIZE).for_each(|frame| drop(zstd.compress(frame).unwrap()));
    });

    let store = Store::open(folder.path()).unwrap();
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    measure("put", bytes, || {
        hashes.iter().zip(&pages).for_each(|(hash, page)| assert!(pack.put(*hash, page).unwrap()));
    });
    println!("{:?}", measure("finish", bytes, || pack.finish().unwrap()));
    let mut again = store.new_pack(&store.lease().unwrap()).unwrap();
    measure("put what is there", bytes, || {
        hashes.iter().zip(&pages).for_each(|(hash, page)| assert!(!again.put(*hash, page).unwrap()));
    });
    for threads in [1, 2] {
        measure(&format!("read_pages, {threads} threads"), bytes, || {
            store.read_pages((0..).zip(hashes.iter().copied()), threads, &|_, _| Ok(())).unwrap();
        });
    }
    let mut into = [0; PAGE_SIZE];
    measure("read_page, in order", bytes, || {
        hashes.iter().for_each(|h| store.read_page(h, &mut into).unwrap())
    });
    measure("verify", bytes, || store.verify(None, &|_| ()).unwrap());
    measure("open", bytes, || Store::open(folder.path()).unwrap());
}
