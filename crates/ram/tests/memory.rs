//! Reading another process's pages, against what they are known to hold.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use watari_ram::{Backing, Error, ProcessMemory, Range};
use watari_types::{PAGE_SIZE, RegionName};

const PAGES: usize = 3000;

static STAMPED: LazyLock<(Vec<u8>, Range, Range)> = LazyLock::new(stamped);

/// Memory of this process, page-aligned, and the same in a file.
fn stamped() -> (Vec<u8>, Range, Range) {
    let mut memory = vec![0; (PAGES + 1) * PAGE_SIZE];
    let skip = memory.as_ptr().align_offset(PAGE_SIZE);
    for (index, bytes) in memory[skip..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        bytes.copy_from_slice(&(index as u32).to_le_bytes());
    }
    let file = File::from(memfd_create("stamped", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(&memory[skip..][..PAGES * PAGE_SIZE], 0).unwrap();
    let start = (memory.as_ptr().addr() + skip) as u64;
    let plain = Range::new(RegionName::ram("m0").unwrap(), start, (PAGES * PAGE_SIZE) as u64);
    let backed = Range { backing: Backing::Shared(Arc::new(file.into())), ..plain.clone() };
    (memory, plain, backed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn pages_arrive_in_the_order_asked_for(runs in prop::collection::vec((0..PAGES as u32, 1..5u32), 0..1500)) {
        let (memory, plain, backed) = &*STAMPED;
        let skip = memory.as_ptr().align_offset(PAGE_SIZE);
        let pages: Vec<u32> = runs
            .iter()
            .flat_map(|(start, count)| *start..(start + count).min(PAGES as u32))
            .collect();
        let wanted: Vec<u8> = pages
            .iter()
            .flat_map(|page| &memory[skip + *page as usize * PAGE_SIZE..][..PAGE_SIZE])
            .copied()
            .collect();
        let process = ProcessMemory::open(std::process::id()).unwrap();
        for range in [plain, backed] {
            let mut read = vec![0xAA; wanted.len()];
            process.read_pages(range, &pages, &mut read).unwrap();
            prop_assert!(read == wanted);
        }
    }
}

#[test]
fn pages_outside_and_buffers_of_another_size_are_refused() {
    let (_, plain, _) = &*STAMPED;
    let process = ProcessMemory::open(std::process::id()).unwrap();
    let mut page = vec![0; PAGE_SIZE];
    for (pages, bytes) in [(vec![PAGES as u32], PAGE_SIZE), (vec![0, 1], PAGE_SIZE), (vec![0], 100)] {
        let refused = process.read_pages(plain, &pages, &mut page[..bytes]);
        assert!(matches!(refused, Err(Error::BadPages { .. })), "{refused:?}");
    }
}

#[test]
fn memory_that_is_not_there_is_named_by_its_first_missing_address() {
    let process = ProcessMemory::open(std::process::id()).unwrap();
    let read = process.read(0x1000, &mut [0; 10]);
    assert!(matches!(read, Err(Error::Access { address: 0x1000, .. })), "{read:?}");
    let written = process.write(0x2000, &[0; 10]);
    assert!(matches!(written, Err(Error::Access { address: 0x2000, .. })), "{written:?}");
}

#[test]
fn what_is_written_is_there() {
    let process = ProcessMemory::open(std::process::id()).unwrap();
    let cells: Vec<AtomicU8> = (0..100_000).map(|_| 0.into()).collect();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    process.write(cells.as_ptr().addr() as u64, &bytes).unwrap();
    assert!(cells.iter().zip(&bytes).all(|(cell, byte)| cell.load(Ordering::Relaxed) == *byte));
}
