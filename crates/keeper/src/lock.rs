//! Lock files: whoever holds one owns what it stands for, a machine or a home, until its process is gone.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Error, Result};

/// How long the kernel may take to end an owner that was killed: it holds the lock until then, and whoever gave up
/// earlier would take a dying owner for a living one.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(10);

/// Takes the lock file at `path`, which is created if need be, for as long as the returned file is open. `None`
/// says that somebody else owns it, and is not about to die.
///
/// # Errors
/// The file cannot be opened or locked at all. Nothing is owned then.
pub fn own(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::io("open", path))?;
    let deadline = Instant::now() + LAST_MOMENTS;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(AGAIN),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Error::io("lock", path)(e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_owner_is_about_to_go_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let dying = own(&path).unwrap().unwrap();
        let owner = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(dying);
        });
        assert!(own(&path).unwrap().is_some());
        owner.join().unwrap();
    }
}
