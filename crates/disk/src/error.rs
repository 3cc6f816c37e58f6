//! Why a disk or an image cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong outside of single reads and writes (those give [`io::Error`]).
///
/// Unless a variant says otherwise, nothing was changed.
#[derive(Debug, Error)]
pub enum Error {
    /// The operating system said no. A disk that was being created may be there half: `create` it again.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not what a disk of Watari looks like.
    #[error("{} is damaged or no disk of Watari: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process (or this one) has the disk open.
    #[error("the disk {} is in use", path.display())]
    InUse {
        /// The disk's raw file.
        path: PathBuf,
    },
    /// The size is not one a disk can have.
    #[error("a disk cannot have {bytes} bytes: it takes a multiple of 4096, more than 0 and below 16 TiB")]
    BadSize {
        /// The size asked for.
        bytes: u64,
    },
    /// The file is no disk image, or of a kind Watari does not read.
    #[error("{} is not a disk image: {why}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it seems to be instead.
        why: String,
    },
    /// The disk asked for is smaller than the image.
    #[error("the image {} needs a disk of at least {image_bytes} bytes, not {asked_bytes}", path.display())]
    ImageTooBig {
        /// The image.
        path: PathBuf,
        /// Its virtual size.
        image_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// `qemu-img` is not installed.
    #[error("qemu-img is not installed")]
    QemuImgMissing,
    /// `qemu-img` gave up.
    #[error("qemu-img cannot {doing} {}: {message}", path.display())]
    QemuImg {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which image.
        path: PathBuf,
        /// The last line of what it said.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { doing, path, source }
    }

    /// Whether the cause is a file system that is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Error::QemuImg { message, .. } => message.contains("No space left on device"),
            _ => false,
        }
    }
}
