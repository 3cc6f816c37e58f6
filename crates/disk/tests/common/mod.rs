//! What the tests share: a source whose content is known.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use watari_disk::{Base, Source};
use watari_types::{Generation, PAGE_SIZE};

/// A source over bytes in memory.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl Source for Memory {
    fn read(&self, first: u32, into: &mut [u8]) -> io::Result<()> {
        assert_eq!(into.len() % PAGE_SIZE, 0, "sources are read in whole pages");
        let start = first as usize * PAGE_SIZE;
        into.copy_from_slice(&self.0[start..start + into.len()]);
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>> {
        let zero = |page: u32| self.0[page as usize * PAGE_SIZE..][..PAGE_SIZE].iter().all(|byte| *byte == 0);
        (first..end).filter(|page| !zero(*page)).map(|page| page..page + 1).collect()
    }
}

/// `pages` pages of which every third is zero and the others are all different.
#[allow(dead_code, reason = "not every test file uses it")]
pub(crate) fn pattern(pages: u32) -> Vec<u8> {
    let mut content = vec![0; pages as usize * PAGE_SIZE];
    for (page, bytes) in content.chunks_mut(PAGE_SIZE).enumerate() {
        if page % 3 != 1 {
            for (at, word) in bytes.chunks_mut(4).enumerate() {
                word.copy_from_slice(&((page * 1024 + at) as u32 | 0x8000_0000).to_le_bytes());
            }
        }
    }
    content
}

#[allow(dead_code, reason = "not every test file uses it")]
pub(crate) fn memory(content: &[u8]) -> Option<Base> {
    base(Memory(content.to_vec()))
}

/// What a disk descends from, without a history.
#[allow(dead_code, reason = "not every test file uses it")]
pub(crate) fn base(source: impl Source + 'static) -> Option<Base> {
    Some(Base { source: Arc::new(source), generation: Generation(0) })
}

/// A folder that goes away with the test, and where a disk in it would be.
#[allow(dead_code, reason = "not every test file uses it")]
pub(crate) fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.raw");
    (folder, path)
}
