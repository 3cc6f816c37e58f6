//! Memory heads: a snapshot's guest memory as a flat file on tmpfs, which any number of clones map
//! copy-on-write.
//!
//! A head is only read once it is complete. Whoever uses it holds a shared lock on it: the keeper's descriptor
//! and the one QEMU inherited are the same open file, so the lock lasts as long as either lives, also through a
//! SIGKILL. A head that nobody holds is only a cache, and [`sweep`] removes it, and the folder with the last one.
//! Sweeping may happen at any moment of somebody else's making a head, who then begins again.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use watari_store::Store;
use watari_types::{PageTable, SnapshotId};

use crate::home::Home;
use crate::memory::fill;
use crate::{Error, Result};

/// Opens the head of `snapshot`, having it made first if it is not there ([`make`]), and holds it.
///
/// The file is opened read-only, which also keeps QEMU from punching holes into what others share.
pub(crate) fn hold(
    home: &Home,
    snapshot: SnapshotId,
    mut make: impl FnMut(&Path) -> Result<()>,
) -> Result<File> {
    loop {
        let path = home.head(snapshot)?;
        match File::open(&path) {
            Ok(file) => {
                lock(&file, &path, FlockOperation::LockShared)?;
                if is_still_at(&file, &path) {
                    return Ok(file);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(&path)?,
            Err(e) => return Err(Error::io("open the memory head", &path)(e)),
        }
    }
}

/// Makes a head, unless it is swept away before anyone can hold it.
pub(crate) fn make(path: &Path, store: &Store, memory: &PageTable, bytes: u64) -> Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let Some(file) = begin(&temporary)? else { return Ok(()) };
    let made = file
        .set_len(bytes)
        .map_err(Error::io("size the memory head", &temporary))
        .and_then(|()| fill(&file, &temporary, store, memory.iter()))
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("publish the memory head", path)));
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made
}

/// Creates a file that is locked before it can be swept away; `None` if it or its folder was.
fn begin(path: &Path) -> Result<Option<File>> {
    let file = match OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("create the memory head", path))?,
    };
    lock(&file, path, FlockOperation::LockExclusive)?;
    Ok(is_still_at(&file, path).then_some(file))
}

/// Removes the heads that no running machine maps, and the folder if none is left. Returns how many bytes that
/// freed.
pub fn sweep(home: &Home) -> Result<u64> {
    let folder = home.heads_if_any();
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut freed = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_still_at(&file, &path) {
            freed += file.metadata().map_or(0, |m| m.blocks() * 512);
            fs::remove_file(&path).map_err(Error::io("remove the memory head", &path))?;
        }
    }
    // Refused by the system while anything is in it.
    let _ = fs::remove_dir(folder);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Says that it is over, also when the test fails.
    struct Ends<'a>(&'a AtomicBool);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn heads_can_be_made_while_others_sweep_and_no_folder_is_left() {
        let folder = Folder(std::env::temp_dir().join(format!("watari-heads-{}", std::process::id())));
        let home = Home::open(&folder.0.join("home"), &folder.0).unwrap();
        let store = Store::open(&home.store()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sweep(&home).unwrap();
                    // Only a maker who is always interrupted never comes to an end.
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            });
            let _ends = Ends(&done);
            for round in 0..1000_u32 {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&round.to_le_bytes());
                let id = SnapshotId(id);
                let make = |path: &Path| make(path, &store, &PageTable::default(), 4096);
                let head = hold(&home, id, make).unwrap();
                assert!(is_still_at(&head, &home.head(id).unwrap()), "swept while it is held");
            }
        });
        sweep(&home).unwrap();
        assert!(!home.heads_if_any().exists());
    }
}
