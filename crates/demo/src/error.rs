//! Why there is no demo machine, and what to install.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use watari_types::{ErrorKind, ErrorReport};

/// Something the demo machine is made of is missing or unreadable. Nothing was changed.
#[derive(Debug, Error)]
pub enum Error {
    /// No kernel in the folder has its modules installed.
    #[error("there is no kernel in {boot:?} whose modules are in {modules:?}")]
    NoKernel {
        /// Where kernels were looked for.
        boot: PathBuf,
        /// Where their modules were looked for.
        modules: PathBuf,
    },
    /// Busybox is not installed, or not the static one.
    #[error("{path:?} is not a static busybox")]
    NoBusybox {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A kernel without a driver that the demo machine cannot do without.
    #[error("kernel {version} has no module {module}")]
    NoModule {
        /// The kernel's version.
        version: String,
        /// The module's name.
        module: &'static str,
    },
    /// A file could not be read or unpacked.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive could not be compressed.
    #[error("cannot pack the initial ramdisk")]
    Pack(#[source] io::Error),
}

impl Error {
    /// The error as a person sees it, with the Debian package that helps.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::NoKernel { .. } | Error::NoModule { .. } => {
                (ErrorKind::NotAnImage, "install the package linux-image-cloud-amd64")
            }
            Error::NoBusybox { .. } => (ErrorKind::NotAnImage, "install the package busybox-static"),
            Error::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (ErrorKind::Io, "make the kernel readable: chmod +r /boot/vmlinuz-*")
            }
            Error::Read { .. } | Error::Pack(_) => (ErrorKind::Io, ""),
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}
