//! What can go wrong on the way to a depot.

use std::io;

use thiserror::Error;
use watari_types::{ErrorKind, ErrorReport};

/// A depot could not be opened. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The text names no place.
    #[error("{0:?} is no depot: {1}")]
    BadAddress(String, &'static str),
    /// Something else is in the folder.
    #[error("{0} is there already, and not an export")]
    NotEmpty(String),
    /// The place is encrypted, and nothing was given to open it with.
    #[error("{0} is encrypted")]
    Sealed(String),
    /// The place is not encrypted, and was to be.
    #[error("{0} is there already, and not encrypted")]
    NotSealed(String),
    /// The passphrase, or the key, is another one.
    #[error("{0} does not open with this passphrase or key")]
    WrongSecret(String),
    /// The file holds no key.
    #[error("this is no age identity: {0}")]
    BadIdentity(String),
    /// Encryption failed.
    #[error("cannot make a key for {place}")]
    Seal {
        /// Where.
        place: String,
        /// Why.
        source: Box<age::EncryptError>,
    },
    /// What opens the depot cannot be read.
    #[error("the key of {place} cannot be read")]
    Key {
        /// Where.
        place: String,
        /// Why.
        source: Box<age::DecryptError>,
    },
    /// The settings do not make sense to the service's client.
    #[error("{place} cannot be reached with these settings")]
    Settings {
        /// Where.
        place: String,
        /// Why.
        source: Box<object_store::Error>,
    },
    /// Reading or writing failed.
    #[error("cannot {doing} {place}")]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It opened, and is no store that can be used.
    #[error(transparent)]
    Store(#[from] watari_store::Error),
}

impl Error {
    pub(crate) fn io(doing: &'static str, place: &str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, place: place.to_owned(), source }
    }

    /// The error in one line, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::Store(error) => return error.report(),
            Error::BadAddress(..) => {
                (ErrorKind::BadRequest, "a depot is a folder, a file ending in .tar, or s3://BUCKET/PREFIX")
            }
            Error::NotEmpty(_) => (ErrorKind::BadRequest, "choose a folder in it that is new or empty"),
            Error::Sealed(_) => {
                (ErrorKind::BadRequest, "give --passphrase-file, --identity or WATARI_PASSPHRASE")
            }
            Error::NotSealed(_) => (ErrorKind::BadRequest, "choose another place, or do without encryption"),
            Error::WrongSecret(_) => {
                (ErrorKind::BadRequest, "nothing was changed; try again with the right one")
            }
            Error::BadIdentity(_) => (ErrorKind::BadRequest, "`age-keygen -o FILE` makes one"),
            Error::Seal { .. } => (ErrorKind::Internal, ""),
            Error::Key { .. } => (ErrorKind::Damaged, "another copy of `key.age` may still open it"),
            Error::Settings { .. } => (
                ErrorKind::BadRequest,
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, unless it is Amazon's, AWS_ENDPOINT_URL",
            ),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (ErrorKind::Io, "see whether the key may read, write and list there")
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                (ErrorKind::Damaged, "another copy of it may be whole")
            }
            Error::Io { .. } => (ErrorKind::Io, "what has arrived stays; the next try goes on from there"),
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}
