//! What never changes, kept nearby: the indexes of the packs in a bucket, which each push and pull begins with.
//!
//! What is remembered is found under the names that the store has for it, which are hashes of it, so it serves all depots
//! that hold the same, and the store sees whether it is right. Nothing depends on it: it may be removed at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use watari_store::{Files, ReadAt};

/// What nobody has asked for in so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);

/// Files elsewhere, and what is remembered of them in a folder here.
pub(crate) struct Remembering {
    files: Arc<dyn Files>,
    folder: PathBuf,
}

impl Remembering {
    pub(crate) fn new(files: Arc<dyn Files>, folder: &Path) -> Remembering {
        forget_old(folder);
        Remembering { files, folder: folder.to_owned() }
    }

    /// Where something is remembered; only of a file in a folder of the store, as all are that never change.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let (_, file) = name.rsplit_once('/')?;
        Some(self.folder.join(file))
    }
}

impl Files for Remembering {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.files.list(folder)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        self.files.open(name)
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        self.files.put(name, content, bytes, may_replace)
    }

    fn spool(&self) -> io::Result<File> {
        self.files.spool()
    }

    fn recall(&self, name: &str) -> Option<Vec<u8>> {
        let place = self.place(name)?;
        let content = fs::read(&place).ok()?;
        let _ = File::open(&place).and_then(|file| file.set_modified(SystemTime::now()));
        Some(content)
    }

    fn remember(&self, name: &str, content: &[u8]) {
        let Some(place) = self.place(name) else { return };
        let written = fs::create_dir_all(&self.folder).and_then(|()| {
            // Readable by nobody else, as these are names of pages of machines.
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(content)?;
            file.persist(&place).map_err(|error| error.error)
        });
        if let Err(error) = written {
            tracing::debug!(%error, place = %place.display(), "not remembered");
        }
    }
}

fn forget_old(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let age =
            entry.metadata().and_then(|meta| meta.modified()).map(|then| then.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > FORGOTTEN_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn what_is_remembered_is_had_until_nobody_asks_for_it_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let there: Arc<dyn Files> = Arc::new(Folder::new(&folder.path().join("there"), false).unwrap());
        let cache = folder.path().join("cache");
        let files = || Remembering::new(Arc::clone(&there), &cache);
        assert_eq!(files().recall("packs/1.pack"), None);
        files().remember("packs/1.pack", b"one");
        files().remember("packs/2.pack", b"two");
        files().remember("format", b"not in a folder, so perhaps not for ever");
        assert_eq!(files().recall("format"), None);
        let long_ago = SystemTime::now() - FORGOTTEN_AFTER;
        for name in ["1.pack", "2.pack"] {
            File::open(cache.join(name)).unwrap().set_modified(long_ago + Duration::from_secs(60)).unwrap();
        }
        assert_eq!(files().recall("packs/1.pack").unwrap(), b"one");
        File::open(cache.join("2.pack")).unwrap().set_modified(long_ago - Duration::from_secs(60)).unwrap();
        assert_eq!(files().recall("packs/2.pack"), None, "forgotten");
        assert_eq!(files().recall("packs/1.pack").unwrap(), b"one", "asked for since");
    }
}
