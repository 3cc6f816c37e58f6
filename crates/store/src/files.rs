//! Files that appear whole or not at all: written in `tmp/`, synced, renamed, and their folder synced.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::elsewhere::{Files, ReadAt};
use crate::error::{At, Error};
#[cfg(test)]
use crate::power::{Change, note};

/// A file being written. Dropped without [`NewFile::publish`], it is removed.
pub(crate) enum NewFile {
    /// In a folder, where it is locked while its writer lives, so that [`remove_abandoned`] can tell.
    InFolder(NamedTempFile),
    /// Aside, until it is put where it belongs.
    Elsewhere { content: File, length: AtomicU64, files: Arc<dyn Files>, root: PathBuf },
}

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
                return Ok(NewFile::InFolder(file));
            }
        }
    }

    /// Creates an empty file for a store that is not in a folder.
    pub(crate) fn elsewhere(files: &Arc<dyn Files>, root: &Path) -> Result<NewFile, Error> {
        let content = files.spool().at("create a file for", root)?;
        let (length, files, root) = (AtomicU64::new(0), Arc::clone(files), root.to_owned());
        Ok(NewFile::Elsewhere { content, length, files, root })
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        match self {
            NewFile::InFolder(file) => {
                file.as_file().write_all_at(bytes, offset).at("write", file.path())?;
                #[cfg(test)]
                note(|| Change::Write { path: file.path().to_owned(), offset, bytes: bytes.to_owned() });
            }
            NewFile::Elsewhere { content, length, root, .. } => {
                content.write_all_at(bytes, offset).at("write what is to be sent to", root)?;
                length.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Takes away what a write that failed has left behind the end.
    pub(crate) fn end_at(&self, bytes: u64) -> Result<(), Error> {
        match self {
            NewFile::InFolder(file) => {
                let content = file.as_file();
                let length = content.metadata().at("inspect", file.path())?.len();
                if length > bytes { content.set_len(bytes).at("shorten", file.path()) } else { Ok(()) }
            }
            NewFile::Elsewhere { length, .. } => {
                length.store(bytes, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Makes the content durable under the name `to`, in place of what was there.
    pub(crate) fn publish(self, to: &Path) -> Result<(), Error> {
        match self {
            NewFile::InFolder(file) => {
                sync(&file)?;
                NewFile::InFolder(file).replace(to)?;
                sync_parent(to)
            }
            NewFile::Elsewhere { .. } => self.replace(to),
        }
    }

    /// Makes the content durable under the name `to`, unless that is taken. Whether it was free.
    pub(crate) fn publish_new(self, to: &Path) -> Result<bool, Error> {
        let file = match self {
            NewFile::InFolder(file) => file,
            NewFile::Elsewhere { content, length, files, root } => {
                return files.put(&name_in(&root, to), &content, length.into_inner(), false).at("write", to);
            }
        };
        sync(&file)?;
        #[cfg(test)]
        let from = file.path().to_owned();
        match file.persist_noclobber(to) {
            Ok(_) => {
                #[cfg(test)]
                note(|| Change::Move { from, to: to.to_owned() });
                sync_parent(to).map(|()| true)
            }
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io("create", to, e.error)),
        }
    }

    /// Gives it the name `to`, in place of what was there. In a folder its content may not survive a crash.
    pub(crate) fn replace(self, to: &Path) -> Result<(), Error> {
        match self {
            NewFile::InFolder(file) => {
                #[cfg(test)]
                let from = file.path().to_owned();
                file.persist(to).map_err(|e| Error::io("create", to, e.error))?;
                #[cfg(test)]
                note(|| Change::Move { from, to: to.to_owned() });
                Ok(())
            }
            NewFile::Elsewhere { content, length, files, root } => {
                files.put(&name_in(&root, to), &content, length.into_inner(), true).at("write", to).map(drop)
            }
        }
    }
}

fn sync(file: &NamedTempFile) -> Result<(), Error> {
    file.as_file().sync_all().at("sync", file.path())?;
    #[cfg(test)]
    note(|| Change::Sync(file.path().to_owned()));
    Ok(())
}

/// What a path in a store is called there.
pub(crate) fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
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

/// A file that is open to be read.
pub(crate) enum OpenFile {
    InFolder { file: File, bytes: u64 },
    Elsewhere(Box<dyn ReadAt>),
}

impl OpenFile {
    pub(crate) fn of_folder(path: &Path) -> Result<OpenFile, Error> {
        let file = File::open(path).at("open", path)?;
        let bytes = file.metadata().at("look at", path)?.len();
        Ok(OpenFile::InFolder { file, bytes })
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            OpenFile::InFolder { bytes, .. } => *bytes,
            OpenFile::Elsewhere(file) => file.bytes(),
        }
    }

    pub(crate) fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            OpenFile::InFolder { file, .. } => file.read_exact_at(into, offset),
            OpenFile::Elsewhere(file) => file.read_exact_at(into, offset),
        }
    }

    /// Reads `bytes` bytes at `offset`. The caller has compared the length with the file's, which `path` names.
    pub(crate) fn read_at(&self, path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        let reserved = usize::try_from(bytes).is_ok_and(|bytes| content.try_reserve_exact(bytes).is_ok());
        if !reserved {
            return Err(Error::io("hold the content of", path, io::ErrorKind::OutOfMemory.into()));
        }
        content.resize(bytes as usize, 0);
        self.read_into(path, offset, &mut content)?;
        Ok(content)
    }

    /// Reads as much as there is room for.
    pub(crate) fn read_into(&self, path: &Path, offset: u64, content: &mut [u8]) -> Result<(), Error> {
        self.read_exact_at(content, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::damaged(path, "it ends early"),
            _ => Error::io("read", path, e),
        })
    }
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
