//! The store's errors as a person sees them.

use watari_types::{ErrorKind, ErrorReport};

use crate::Error;

impl Error {
    /// The error in one line, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::NoSpace { .. } => {
                (ErrorKind::NoSpace, "free some space on that file system (`watari gc` may) and try again")
            }
            Error::ReadOnly { .. } => (ErrorKind::Io, "make that file system writable and try again"),
            Error::Damaged { .. } | Error::MissingPage { .. } => {
                (ErrorKind::Damaged, "`watari verify` names every snapshot that is affected")
            }
            Error::Forged(_) => (ErrorKind::Damaged, "nothing of it was taken; ask those who run that node"),
            Error::NewerFormat { .. } => {
                (ErrorKind::Damaged, "use the version of Watari that wrote it, or a newer one")
            }
            Error::MissingSnapshot { .. } => {
                (ErrorKind::BadRevision, "`watari log NAME` lists what there is")
            }
            Error::NoStore { .. } => (ErrorKind::BadRequest, "`watari export` makes one"),
            Error::Collecting { .. } => (ErrorKind::WrongState, "try again when that is done"),
            Error::BadTag(_) => (ErrorKind::BadRequest, ""),
            Error::Sink { source, .. } | Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => (
                    ErrorKind::NoSpace,
                    "free some space on that file system (`watari gc` may) and try again",
                ),
                _ => (ErrorKind::Io, ""),
            },
            Error::GenerationTaken { .. } | Error::BadDraft(_) => (ErrorKind::Internal, ""),
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}
