//! A store that is not in a folder: in one file, in a bucket, under encryption. What is needed of such a place is little,
//! because files are written once: to list, to read a part, and to put a whole file.

use std::fs::File;
use std::io;

/// The files of a store, by the names that docs/FORMAT.md gives them, as in `packs/….pack`.
///
/// Implementations are called from several threads at once.
pub trait Files: Send + Sync {
    /// The names of the files and folders in a folder; none if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>>;

    /// Keeps the first `bytes` bytes of `content` under a name. When it returns the file is there whole and durably,
    /// and after an error it is there whole or not at all. Unless it `may_replace` another, it must not: whether it was put.
    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool>;

    /// An empty file to write what will be put; it vanishes when it is closed.
    fn spool(&self) -> io::Result<File>;

    /// What was remembered of a file that never changes, to be had without fetching it. Whoever asks must be able to tell
    /// whether it is right.
    fn recall(&self, _name: &str) -> Option<Vec<u8>> {
        None
    }

    /// Remembers something of a file that never changes, if there is room for it.
    fn remember(&self, _name: &str, _content: &[u8]) {}
}

/// A file that is open.
pub trait ReadAt: Send + Sync {
    /// Its length.
    fn bytes(&self) -> u64;

    /// Reads exactly so many bytes from there.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}
