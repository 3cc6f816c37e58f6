//! Files that appear whole or not at all: written in `tmp/`, synced, renamed, and their folder synced.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::error::{At, Error};
#[cfg(test)]
use crate::power::{Change, note};

/// A file being written. Dropped without [`NewFile::publish`], it is removed.
///
/// It is locked while its writer lives, so that [`remove_abandoned`] can tell.
pub(crate) struct NewFile(NamedTempFile);

impl NewFile {
    /// Creates an empty file in `tmp`, readable by nobody else: it may hold a guest's memory.
    pub(crate) fn create(tmp: &Path) -> Result<NewFile, Error> {
        loop {
            let file = tempfile::Builder::new().prefix("").tempfile_in(tmp).at("create a file in", tmp)?;
            flock(file.as_file(), FlockOperation::LockExclusive).at("lock", file.path())?;
            // Between its creation and the lock it may have looked abandoned to another process.
            if file.as_file().metadata().at("look at", file.path())?.nlink() > 0 {
                #[cfg(test)]
                note(|| Change::Create(file.path().to_owned()));
                return Ok(NewFile(file));
            }
        }
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.0.as_file().write_all_at(bytes, offset).at("write", self.0.path())?;
        #[cfg(test)]
        note(|| Change::Write { path: self.0.path().to_owned(), offset, bytes: bytes.to_owned() });
        Ok(())
    }

    /// Makes the content durable under the name `to`, in place of what was there.
    pub(crate) fn publish(self, to: &Path) -> Result<(), Error> {
        self.sync()?;
        self.replace(to)?;
        sync_parent(to)
    }

    /// Makes the content durable under the name `to`, unless that is taken. Whether it was free.
    pub(crate) fn publish_new(self, to: &Path) -> Result<bool, Error> {
        self.sync()?;
        #[cfg(test)]
        let from = self.0.path().to_owned();
        match self.0.persist_noclobber(to) {
            Ok(_) => {
                #[cfg(test)]
                note(|| Change::Move { from, to: to.to_owned() });
                sync_parent(to).map(|()| true)
            }
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io("create", to, e.error)),
        }
    }

    /// Gives it the name `to`, in place of what was there. Its content may not survive a crash.
    pub(crate) fn replace(self, to: &Path) -> Result<(), Error> {
        #[cfg(test)]
        let from = self.0.path().to_owned();
        self.0.persist(to).map_err(|e| Error::io("create", to, e.error))?;
        #[cfg(test)]
        note(|| Change::Move { from, to: to.to_owned() });
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        self.0.as_file().sync_all().at("sync", self.0.path())?;
        #[cfg(test)]
        note(|| Change::Sync(self.0.path().to_owned()));
        Ok(())
    }
}

/// Removes what processes that are gone left in `tmp`. Nothing depends on it, so it never fails.
pub(crate) fn remove_abandoned(tmp: &Path) {
    for path in list(tmp).unwrap_or_default() {
        remove_if_abandoned(&path);
    }
}

/// Removes a file, or a folder, unless the process that made it lives; whether it is gone.
pub(crate) fn remove_if_abandoned(path: &Path) -> bool {
    match if path.is_dir() { fs::remove_dir_all(path) } else { remove_unlocked(path) } {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => {
            tracing::debug!(path = %path.display(), error = %e, "leftover stays");
            false
        }
    }
}

fn remove_unlocked(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::remove_file(path)
}

/// Everything in a folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).at("list", folder)?;
    entries.map(|entry| Ok(entry.at("list", folder)?.path())).collect()
}

/// Removes a file; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        removed => removed.at("remove", path)?,
    }
    #[cfg(test)]
    note(|| Change::Remove(path.to_owned()));
    Ok(true)
}

/// Gives a file another name, unless it is gone.
pub(crate) fn move_to(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved.at("move", from)?,
    }
    #[cfg(test)]
    note(|| Change::Move { from: from.to_owned(), to: to.to_owned() });
    Ok(())
}

/// The folder that `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the names in the folder of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    sync_folder(folder_of(path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).at("sync", folder)?;
    #[cfg(test)]
    note(|| Change::SyncFolder(folder.to_owned()));
    Ok(())
}

/// Creates a folder that nobody else may enter, unless it is there.
pub(crate) fn ensure_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_parent(path),
        Err(_) if path.is_dir() => Ok(()),
        Err(e) => Err(Error::io("create", path, e)),
    }
}

/// Reads `bytes` bytes at `offset`. The caller has compared the length with the file's.
pub(crate) fn read_at(file: &File, path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let reserved = usize::try_from(bytes).is_ok_and(|bytes| content.try_reserve_exact(bytes).is_ok());
    if !reserved {
        return Err(Error::io("hold the content of", path, io::ErrorKind::OutOfMemory.into()));
    }
    content.resize(bytes as usize, 0);
    read_into(file, path, offset, &mut content)?;
    Ok(content)
}

/// Reads as much as there is room for.
pub(crate) fn read_into(file: &File, path: &Path, offset: u64, content: &mut [u8]) -> Result<(), Error> {
    file.read_exact_at(content, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::damaged(path, "it ends early"),
        _ => Error::io("read", path, e),
    })
}

/// Opens a file and tells its length.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    let file = File::open(path).at("open", path)?;
    let bytes = file.metadata().at("look at", path)?.len();
    Ok((file, bytes))
}

/// The bytes that everything under `folder` occupies on its disk. What vanishes meanwhile is not counted.
pub(crate) fn occupied(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).at("list", folder)? {
        let entry = entry.at("list", folder)?;
        let counted = match entry.metadata() {
            Ok(meta) if meta.is_dir() => occupied(&entry.path()),
            Ok(meta) => Ok(meta.blocks() * 512),
            Err(e) => Err(Error::io("look at", &entry.path(), e)),
        };
        match counted {
            Err(e) if e.is_gone() => {}
            counted => bytes += counted?,
        }
    }
    Ok(bytes)
}
