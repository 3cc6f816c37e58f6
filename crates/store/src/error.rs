//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use watari_types::{Generation, MachineId, PageHash, SnapshotId};

/// An operation of the store failed. Whatever the error, everything that was published stays as it was, and
/// what was being written is not visible to anyone; except that when only the last step, syncing the folder,
/// failed, it is visible but may not survive a crash. Every operation may be repeated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk, or the user's share of it, is full.
    #[error("no space left to {doing} {}", path.display())]
    NoSpace {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The medium is read-only.
    #[error("cannot {doing} {} on a read-only file system", path.display())]
    ReadOnly {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file was written by a later version of Watari.
    #[error("{} has format version {version}, which this version of Watari does not know", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version it claims.
        version: u32,
    },
    /// There is no store.
    #[error("there is no store of Watari in {}", path.display())]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No pack holds the page.
    #[error("page {page} is in no pack of {}", store.display())]
    MissingPage {
        /// The page.
        page: PageHash,
        /// The store's folder.
        store: PathBuf,
    },
    /// There is no manifest of that name.
    #[error("snapshot {snapshot} is not in {}", store.display())]
    MissingSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The store's folder.
        store: PathBuf,
    },
    /// The machine has another snapshot of that generation already. Nothing was changed.
    #[error("machine {machine} already has another snapshot of generation {generation}: {existing}")]
    GenerationTaken {
        /// The machine.
        machine: MachineId,
        /// The generation asked for.
        generation: Generation,
        /// The snapshot that has it.
        existing: SnapshotId,
    },
    /// Somebody else is collecting garbage. Nothing was changed.
    #[error("garbage is being collected already in {}", store.display())]
    Collecting {
        /// The store's folder.
        store: PathBuf,
    },
    /// The text may not be a tag. Nothing was changed.
    #[error("{0:?} cannot be a tag: use letters, digits, '-', '_' and '.', and not digits only")]
    BadTag(String),
    /// What was sent here is not what it is said to be. It was not taken.
    #[error("what was sent is not what it is said to be: {0}")]
    Forged(String),
    /// The snapshot contradicts itself and was not published.
    #[error("the snapshot cannot be published: {0}")]
    BadDraft(String),
    /// The caller's receiver of pages failed.
    #[error("cannot hand over page {page}")]
    Sink {
        /// The first page of the run that was handed over.
        page: u32,
        /// What the receiver said.
        source: io::Error,
    },
    /// The operating system said no.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { doing, path, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { doing, path, source },
            _ => Error::Io { doing, path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// Whether the file was not there: it may have been replaced by another one meanwhile.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Names the file an operation was about.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(doing, path, source))
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(doing, path, source.into()))
    }
}

/// Why bytes are not what they should be, before it is known which file they came from.
#[derive(Debug)]
pub(crate) enum Defect {
    Damaged(String),
    NewerFormat(u32),
}

impl Defect {
    pub(crate) fn new(what: impl Into<String>) -> Defect {
        Defect::Damaged(what.into())
    }

    pub(crate) fn of(self, path: &Path) -> Error {
        match self {
            Defect::Damaged(what) => Error::damaged(path, what),
            Defect::NewerFormat(version) => Error::NewerFormat { path: path.to_owned(), version },
        }
    }
}
