//! Why a disk, or a file system on it, is not read.

use std::io;

use thiserror::Error;

/// What keeps a file system from being read. Nothing is ever changed.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk could not be read.
    #[error("the disk cannot be read")]
    Read(#[from] io::Error),
    /// What was read cannot be true.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It has something that this reader does not know.
    #[error("it has {0}, which is not understood")]
    Unsupported(String),
    /// Reading on would take more time or memory than any reasonable file system is worth.
    #[error("too much: {0}")]
    TooMuch(&'static str),
}

/// The result of reading.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// That something cannot be true.
pub(crate) fn damaged<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Damaged(what.into()))
}
