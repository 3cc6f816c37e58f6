//! What a snapshot reads, all of it, in every way it can be read.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use watari_store::{Error, Snapshot, Store};
use watari_types::{PAGE_SIZE, PageHash, PageTable, RegionName, SnapshotId};

/// So many pages of each region are read one by one besides.
const SINGLY: usize = 4;

/// A snapshot. Of pages the names, which what was read has.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    snapshot: Snapshot,
    devices: Option<Vec<u8>>,
    pages: BTreeMap<RegionName, Vec<(u32, PageHash)>>,
}

/// What reading a snapshot comes to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every page is what it is named after.
    Reads(Box<Reading>),
    /// A page is not.
    Wrong,
    #[allow(dead_code, reason = "shown by what fails")]
    Refused(Error),
}

/// Reads a snapshot.
pub(crate) fn read(store: &Store, id: SnapshotId) -> Outcome {
    let is_right = AtomicBool::new(true);
    match read_all(store, id, &is_right) {
        _ if !is_right.into_inner() => Outcome::Wrong,
        Ok(reading) => Outcome::Reads(Box::new(reading)),
        Err(error) => {
            check_error(&error);
            Outcome::Refused(error)
        }
    }
}

fn read_all(store: &Store, id: SnapshotId, is_right: &AtomicBool) -> Result<Reading, Error> {
    let snapshot = store.snapshot(id)?;
    store.signer(id)?;
    if let Some(parent) = snapshot.draft.parent {
        // The parent may be gone, or never have been there.
        let _ = store.changed_between(parent, id).inspect_err(check_error);
    }
    let devices = store.device_state(id)?;
    let tables = store.page_tables(id)?;
    let (mut pages, mut failure) = (BTreeMap::new(), None);
    for (name, table) in tables {
        // All of it, whatever fails: what is wrong may be anywhere.
        failure = failure.or(read_pages(store, &table, is_right).err());
        failure = failure.or(store.check_readable(table.iter(), 2).err());
        pages.insert(name, table.iter().collect());
    }
    failure.map_or(Ok(Reading { snapshot, devices, pages }), Err)
}

fn read_pages(store: &Store, table: &PageTable, is_right: &AtomicBool) -> Result<(), Error> {
    let check = |page: u32, content: &[u8; PAGE_SIZE]| {
        if PageHash::of(content) != table.get(page) {
            is_right.store(false, Ordering::Relaxed);
        }
    };
    store.read_pages(table.iter(), 2, &|first, bytes| {
        let (pages, rest) = bytes.as_chunks();
        (first..).zip(pages).for_each(|(number, page)| check(number, page));
        if rest.is_empty() { Ok(()) } else { Err(io::Error::other("not whole pages")) }
    })?;
    table.iter().take(SINGLY).try_for_each(|(number, name)| {
        let mut content = [0; PAGE_SIZE];
        store.read_page(&name, &mut content)?;
        check(number, &content);
        Ok(())
    })
}

/// An error says what is wrong with the files, and is never one that they cannot cause.
pub(crate) fn check_error(error: &Error) {
    let is_theirs = match error {
        Error::Io { source, .. } => matches!(
            source.kind(),
            // What is encrypted and damaged, and a file where a folder should be.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotADirectory
        ),
        Error::Damaged { .. }
        | Error::NewerFormat { .. }
        | Error::NoStore { .. }
        | Error::MissingPage { .. }
        | Error::MissingSnapshot { .. }
        | Error::GenerationTaken { .. } => true,
        _ => false,
    };
    assert!(is_theirs, "files cannot cause {error:?}");
}
