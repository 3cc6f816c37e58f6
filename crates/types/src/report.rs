//! What went wrong, as a person and a program see it: a kind, one line, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error as it leaves Watari: `{"kind","message","hint"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// What kind of thing went wrong, for programs.
    pub kind: ErrorKind,
    /// What happened, and to what, in one line.
    pub message: String,
    /// What to do about it, in one line; empty where nothing sensible can be said.
    #[serde(default)]
    pub hint: String,
}

/// The kinds of error a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No machine of that name.
    UnknownMachine,
    /// The text is not a revision, or nothing answers to it, or more than one thing does.
    BadRevision,
    /// The name may not be given to a machine.
    BadName,
    /// A machine of that name is there already.
    NameTaken,
    /// The request itself makes no sense.
    BadRequest,
    /// The machine is not in a state in which that can be done.
    WrongState,
    /// The snapshot is signed by a node that is not trusted.
    Untrusted,
    /// What was read back is not what was written.
    Damaged,
    /// The file is not a disk image, kernel or initrd.
    NotAnImage,
    /// The disk is full.
    NoSpace,
    /// The host has not enough memory free.
    NotEnoughMemory,
    /// QEMU is not installed.
    QemuMissing,
    /// QEMU is older than what Watari needs, or than what the snapshot needs.
    QemuTooOld,
    /// QEMU refused or died.
    Qemu,
    /// Another daemon already serves this home.
    HomeInUse,
    /// No daemon answers.
    NoDaemon,
    /// The machine's keeper does not answer.
    NoKeeper,
    /// No node of that name is in the mesh, or several are; or this node is in none.
    UnknownNode,
    /// The node does not answer.
    Unreachable,
    /// The text is no ticket, or one that admits nobody any more.
    BadTicket,
    /// The node does not do that for this one.
    Forbidden,
    /// The operating system said no.
    Io,
    /// Something that should not happen.
    Internal,
}

impl ErrorReport {
    /// A report with a hint.
    pub fn new(kind: ErrorKind, message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        ErrorReport { kind, message: message.to_string(), hint: hint.to_string() }
    }

    /// One line with an error and everything that caused it, outermost first, as `a: b: c`.
    pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
        let mut line = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !line.ends_with(&text) {
                line = format!("{line}: {text}");
            }
            source = cause.source();
        }
        line
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorReport {}
