//! What can go wrong between nodes.

use std::path::PathBuf;

use thiserror::Error;
use watari_types::{ErrorKind, ErrorReport, NodeId};

use crate::exchange::{BadMessage, Violation};
use crate::roll::RollError;

/// Something between two nodes failed. What the other one has of it is said where it is done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection ended, for the reason that whoever noticed it gives.
    #[error("the connection to the other node was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A part of this program failed.
    #[error("{0}")]
    Internal(&'static str),
    /// The other node would not.
    #[error("{0}")]
    Refused(#[source] ErrorReport),
    /// This node would not.
    #[error("{0}")]
    Unwanted(#[source] ErrorReport),
    /// The node does not answer.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// As the transport has it.
        why: String,
    },
    /// There is no such key.
    #[error("{0} is no node's key")]
    NoKey(NodeId),
    /// A relay's URL is none.
    #[error("{0:?} is no relay's URL")]
    BadRelay(String),
    /// The node cannot listen for others.
    #[error("cannot listen for other nodes")]
    Listen(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No node of the mesh is called so, or several are.
    #[error("{0}")]
    UnknownNode(String),
    /// The ticket admits nobody.
    #[error("the ticket cannot be used: {0}")]
    Ticket(String),
    /// Who belongs to the mesh cannot be told from what is there.
    #[error(transparent)]
    Roll(#[from] RollError),
    /// A file of the mesh cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What came is no message.
    #[error("the other node sends what cannot be read")]
    BadMessage(#[from] BadMessage),
    /// What came may not come then.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] watari_store::Error),
}

impl Error {
    /// That a connection ended.
    pub(crate) fn cut(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Cut(reason.into())
    }

    /// The error in one line, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::Refused(report) | Error::Unwanted(report) => return report.clone(),
            Error::Store(error) => return error.report(),
            Error::Internal(_) => (ErrorKind::Internal, "node.log may say more; please report it"),
            Error::Cut(_) => (ErrorKind::Unreachable, "try again: it goes on from where it was"),
            Error::Unreachable { .. } => (ErrorKind::Unreachable, "is `watari up` running there?"),
            Error::NoKey(_) | Error::UnknownNode(_) => (ErrorKind::UnknownNode, "`watari nodes` lists them"),
            Error::BadRelay(_) => (ErrorKind::BadRequest, "write it as `https://relay.example.org`"),
            Error::Listen(_) => (ErrorKind::Io, "`listen` below `[mesh]` in node/settings.toml says where"),
            Error::Ticket(_) => {
                (ErrorKind::BadTicket, "ask for a new one: `watari invite` on a node of the mesh")
            }
            Error::Roll(_) => (ErrorKind::Forbidden, ""),
            Error::Io { .. } => (ErrorKind::Io, ""),
            Error::BadMessage(_) | Error::Violation(_) => {
                (ErrorKind::Forbidden, "is it another version of Watari? `watari nodes` shows them")
            }
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}
