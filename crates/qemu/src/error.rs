//! What can go wrong with a QEMU process, and whether its machine is still as it was.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use watari_types::{ErrorKind, ErrorReport};

use crate::Version;

/// Something QEMU, or the way to it, refused.
///
/// Unless a variant says otherwise, the machine is as it was before.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no QEMU in any folder of the search path.
    #[error("{program} is not in any of the folders {searched:?}")]
    Missing {
        /// The program looked for.
        program: &'static str,
        /// The search path.
        searched: std::ffi::OsString,
    },
    /// QEMU is older than the oldest one that is known to work.
    #[error("{binary:?} is QEMU {found}, but {need} or later is needed")]
    TooOld {
        /// The program found.
        binary: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest version that will do.
        need: Version,
    },
    /// QEMU could not be asked about itself.
    #[error("cannot run {binary:?}")]
    Run {
        /// The program.
        binary: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// QEMU's answer about itself makes no sense.
    #[error("{binary:?} answers {argument} with {answer:?}")]
    Strange {
        /// The program.
        binary: PathBuf,
        /// What it was started with.
        argument: &'static str,
        /// The beginning of what it said.
        answer: String,
    },
    /// The machine's configuration cannot be expressed as a QEMU command line.
    #[error("the machine cannot be built: {0}")]
    Config(String),
    /// A network card could not be plugged into a bridge.
    #[error("cannot plug the machine into the bridge {bridge}: {detail}")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// What QEMU's bridge helper said.
        detail: String,
    },
    /// A file or descriptor for the new process could not be prepared.
    #[error("cannot prepare {what} for QEMU")]
    Prepare {
        /// Which one.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing answered on the socket before the deadline.
    #[error("nothing answers on {path:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The last attempt's failure.
        source: io::Error,
    },
    /// The connection ended: QEMU exited or was killed, or what it sent was not its protocol.
    #[error("the connection to {peer} ended: {reason}")]
    Closed {
        /// Who was at the other end.
        peer: &'static str,
        /// Why it ended.
        reason: String,
    },
    /// No answer within the time limit. The command may still be carried out later.
    #[error("{peer} did not answer {command} within {limit:?}")]
    TimedOut {
        /// Who was asked.
        peer: &'static str,
        /// What it was asked.
        command: String,
        /// How long was waited.
        limit: Duration,
    },
    /// QEMU or the guest agent refused the command.
    #[error("{peer} refused {command}: {detail}")]
    Refused {
        /// Who was asked.
        peer: &'static str,
        /// What it was asked.
        command: String,
        /// What it said.
        detail: String,
    },
    /// An answer without the fields that were asked for.
    #[error("{peer} answered {command} with {answer}")]
    BadAnswer {
        /// Who was asked.
        peer: &'static str,
        /// What it was asked.
        command: String,
        /// The beginning of what it said.
        answer: String,
    },
    /// The device state was not accepted. The machine's devices are half loaded: end the process.
    #[error("the device state in {path:?} cannot be loaded: {detail}")]
    Incoming {
        /// The file the state was read from.
        path: PathBuf,
        /// What QEMU said.
        detail: String,
    },
}

impl Error {
    /// The error as a person sees it, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::Missing { .. } => {
                (ErrorKind::QemuMissing, "install the package qemu-system-x86 (QEMU 8.2 or later)")
            }
            Error::TooOld { .. } => (
                ErrorKind::QemuTooOld,
                "install a newer qemu-system-x86; on Debian 12 it is in the suite bookworm-backports",
            ),
            Error::Closed { .. } => (ErrorKind::Qemu, "its log says why it ended"),
            Error::Config(_) => (ErrorKind::BadRequest, ""),
            Error::Prepare { .. } => (ErrorKind::Io, ""),
            Error::Bridge { .. } => (
                ErrorKind::Qemu,
                "an administrator allows it with a line `allow BRIDGE` in /etc/qemu/bridge.conf, and unless you are one, \
                 `chmod u+s` of qemu-bridge-helper",
            ),
            _ => (ErrorKind::Qemu, ""),
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}

/// The beginning of a text, for messages that quote what a stranger said.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}
