//! Memory heads: a snapshot's guest memory as a flat file on tmpfs, which any number of clones map
//! copy-on-write.
//!
//! A head is only read once it is complete. Whoever uses it holds a shared lock on it: the keeper's descriptor
//! and the one QEMU inherited are the same open file, so the lock lasts as long as either lives, also through a
//! SIGKILL. A head that nobody holds is only a cache, and [`sweep`] removes it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageTable, SnapshotId};

use crate::home::Home;
use crate::{Error, Result};

/// Opens the head of `snapshot`, making it from the store first if it is not there, and holds it.
///
/// The file is opened read-only, which also keeps QEMU from punching holes into what others share.
pub(crate) fn hold(
    home: &Home,
    store: &Store,
    snapshot: SnapshotId,
    memory: &PageTable,
    bytes: u64,
) -> Result<File> {
    let path = home.head(snapshot)?;
    loop {
        match File::open(&path) {
            Ok(file) => {
                lock(&file, &path, FlockOperation::LockShared)?;
                if is_still_at(&file, &path) {
                    return Ok(file);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(&path, store, memory, bytes)?,
            Err(e) => return Err(Error::io("open the memory head", &path)(e)),
        }
    }
}

/// Fills guest memory (a head, or a machine's own) with what the snapshot holds. Zero pages stay holes.
pub(crate) fn fill(file: &File, path: &Path, store: &Store, memory: &PageTable) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    store.read_pages(memory.iter(), threads, &|page, bytes| {
        file.write_all_at(bytes, u64::from(page) * PAGE_SIZE as u64)
    })?;
    tracing::debug!(path = %path.display(), pages = memory.len(), "memory filled");
    Ok(())
}

fn make(path: &Path, store: &Store, memory: &PageTable, bytes: u64) -> Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(Error::io("create the memory head", &temporary))?;
    lock(&file, &temporary, FlockOperation::LockExclusive)?;
    let made = file
        .set_len(bytes)
        .map_err(Error::io("size the memory head", &temporary))
        .and_then(|()| fill(&file, &temporary, store, memory))
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("publish the memory head", path)));
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made
}

/// Removes the heads that no running machine maps. Returns how many bytes that freed.
pub fn sweep(home: &Home) -> Result<u64> {
    let folder = home.heads()?;
    let mut freed = 0;
    for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))?.flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_still_at(&file, &path) {
            freed += file.metadata().map_or(0, |m| m.blocks() * 512);
            fs::remove_file(&path).map_err(Error::io("remove the memory head", &path))?;
        }
    }
    Ok(freed)
}

fn lock(file: &File, path: &Path, how: FlockOperation) -> Result<()> {
    flock(file, how).map_err(|e| Error::io("lock the memory head", path)(e.into()))
}

/// Whether `path` still names the file behind the descriptor: it may have been swept between open and lock.
fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => held.ino() == named.ino() && held.dev() == named.dev(),
        _ => false,
    }
}
