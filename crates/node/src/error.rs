//! What can go wrong in the daemon, and how a client sees it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use watari_types::{
    BridgeName, ErrorKind, ErrorReport, MachineName, NameError, NodeId, RevError, SnapshotId,
};

/// A request that was not carried out. Unless a variant says otherwise, nothing has changed.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the daemon's own could not be used.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another daemon holds the home.
    #[error("another daemon already serves {0:?}")]
    HomeInUse(PathBuf),
    /// The web page was to be served beyond this computer in the clear.
    #[error("the web page is not served on {0} without a certificate")]
    OpenPage(SocketAddr),
    /// The web page's certificate or its key cannot be used.
    #[error("the web page cannot prove itself with {path:?}")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such machine.
    #[error("there is no machine {0}")]
    UnknownMachine(MachineName),
    /// A machine of that name is there already.
    #[error("there is already a machine {0}")]
    NameTaken(MachineName),
    /// The name is not one a machine can have.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The name is one of the home's own files.
    #[error("{0:?} cannot be a machine's name: Watari uses it itself")]
    ReservedName(String),
    /// The text is not a revision.
    #[error(transparent)]
    NotARevision(#[from] RevError),
    /// Nothing, or more than one thing, answers to the revision.
    #[error("{rev}: {problem}")]
    BadRevision {
        /// The revision.
        rev: String,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        hint: String,
    },
    /// The request contradicts itself or the host.
    #[error("{0}")]
    BadRequest(String),
    /// The file cannot be what a machine boots with.
    #[error("{path:?} cannot be {region}")]
    NotABootFile {
        /// The file.
        path: PathBuf,
        /// What it was meant to be.
        region: String,
    },
    /// There is a file where one was to be written.
    #[error("{0:?} is there already")]
    FileExists(PathBuf),
    /// The machine is doing something else.
    #[error("{name} is {state}")]
    WrongState {
        /// The machine.
        name: MachineName,
        /// What it is doing.
        state: String,
        /// What to do first.
        hint: String,
    },
    /// The host has too little memory for the machine.
    #[error("{name} needs {needed_mib} MiB of memory, and {free_mib} MiB are free")]
    NotEnoughMemory {
        /// The machine.
        name: MachineName,
        /// What it needs.
        needed_mib: u64,
        /// What there is.
        free_mib: u64,
    },
    /// Everything is to end, so nothing starts.
    #[error("the daemon is ending its machines")]
    Closing,
    /// Machines that were to end run on. All others have ended.
    #[error("cannot end {}", each(.0))]
    NotEnded(Vec<(MachineName, Error)>),
    /// What the keeper said.
    #[error(transparent)]
    Report(#[from] ErrorReport),
    /// From the store.
    #[error(transparent)]
    Store(#[from] watari_store::Error),
    /// From the keeper's library.
    #[error(transparent)]
    Keeper(#[from] watari_keeper::Error),
    /// From QEMU.
    #[error(transparent)]
    Qemu(#[from] watari_qemu::Error),
    /// From a depot.
    #[error(transparent)]
    Depot(#[from] watari_depot::Error),
    /// From another node, or on the way to it.
    #[error(transparent)]
    Mesh(#[from] watari_mesh::Error),
    /// This node is in no mesh.
    #[error("this node is in no mesh")]
    NoMesh,
    /// This node is in a mesh with others.
    #[error("this node is in a mesh already")]
    InMesh,
    /// A snapshot is offered of a machine that runs here.
    #[error("{0} runs on that node, which adds to its history itself")]
    RunsHere(MachineName),
    /// There is no such bridge.
    #[error("{0} is no bridge on that computer")]
    NoBridge(BridgeName),
    /// The QEMU here does not load what another one has saved.
    #[error("that node has QEMU {ours}, and the machine runs on {theirs}")]
    OlderQemu {
        /// The version here.
        ours: String,
        /// The one it runs on.
        theirs: String,
    },
    /// The machine lives on another node now, or may.
    #[error("{why}")]
    Elsewhere {
        /// Where.
        why: String,
        /// What can be done.
        hint: String,
    },
    /// The snapshot may be anybody's.
    #[error("snapshot {snapshot} is from node {node}, which is not trusted here")]
    Untrusted {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Who signed it.
        node: NodeId,
    },
    /// From the machine's display.
    #[error(transparent)]
    Display(#[from] watari_screen::DisplayError),
    /// A picture could not be made.
    #[error(transparent)]
    Picture(#[from] watari_screen::EncodeError),
    /// From the disk engine.
    #[error(transparent)]
    Disk(#[from] watari_disk::Error),
    /// From the demo machine.
    #[error(transparent)]
    Demo(#[from] watari_demo::Error),
    /// The operating system gave no random numbers.
    #[error("no random numbers")]
    Random(#[source] io::Error),
    /// The daemon failed itself.
    #[error("{0}")]
    Internal(String),
}

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with what was done to which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// The error as a person sees it, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let line = ErrorReport::chain(self);
        let report = |kind, hint: &str| ErrorReport::new(kind, &line, hint);
        match self {
            Error::Io { source, .. } => io_report(source, &line),
            Error::HomeInUse(_) => {
                report(ErrorKind::HomeInUse, "use it with the other commands, or choose another --home")
            }
            Error::OpenPage(_) => report(
                ErrorKind::BadRequest,
                "name `certificate` and `key` in `[web]` of node/settings.toml; or leave `listen` out, and use `ssh -L`",
            ),
            Error::BadCertificate { .. } => report(
                ErrorKind::BadRequest,
                "`certificate` and `key` in `[web]` of node/settings.toml are PEM files that belong together",
            ),
            Error::UnknownMachine(_) => report(ErrorKind::UnknownMachine, "`watari list` shows the machines"),
            Error::NameTaken(_) => {
                report(ErrorKind::NameTaken, "choose another name, or remove that machine")
            }
            Error::BadName(_) => report(ErrorKind::BadName, NameError::HINT),
            Error::ReservedName(_) => report(ErrorKind::BadName, "choose another name"),
            Error::NotARevision(_) => report(
                ErrorKind::BadRevision,
                "write NAME, NAME@GENERATION, NAME@TAG or the beginning of a snapshot's id",
            ),
            Error::BadRevision { hint, .. } => report(ErrorKind::BadRevision, hint),
            Error::BadRequest(_) => report(ErrorKind::BadRequest, ""),
            Error::NotABootFile { .. } => report(
                ErrorKind::NotAnImage,
                "give a Linux kernel (bzImage) with --kernel, and an initial ramdisk with --initrd",
            ),
            Error::FileExists(_) => {
                report(ErrorKind::BadRequest, "choose another name, or --force replaces it")
            }
            Error::WrongState { hint, .. } => report(ErrorKind::WrongState, hint),
            Error::NotEnoughMemory { .. } => {
                report(ErrorKind::NotEnoughMemory, "stop another machine, or give this one less memory")
            }
            Error::Closing => report(ErrorKind::NoDaemon, "`watari up` starts it again"),
            Error::NotEnded(failed) => {
                let kind = failed.first().map_or(ErrorKind::Internal, |(_, error)| error.report().kind);
                report(kind, "the daemon still runs; `watari down --machines` tries again")
            }
            Error::Report(report) => report.clone(),
            Error::Store(e) => e.report(),
            Error::Depot(e) => e.report(),
            Error::Mesh(e) => e.report(),
            Error::NoMesh => report(
                ErrorKind::UnknownNode,
                "`watari invite` begins one, `watari join TICKET` joins another's",
            ),
            Error::InMesh => report(ErrorKind::WrongState, "`watari leave` first, if that one is to be left"),
            Error::RunsHere(_) => report(ErrorKind::WrongState, "stop it there, or push to another node"),
            Error::NoBridge(_) => report(
                ErrorKind::BadRequest,
                "`ip link show type bridge` lists them; every node it is to run on needs one of that name",
            ),
            Error::OlderQemu { .. } => {
                report(ErrorKind::QemuTooOld, "install the same QEMU there, or a later one")
            }
            Error::Elsewhere { hint, .. } => report(ErrorKind::WrongState, hint),
            Error::Untrusted { node, .. } => report(
                ErrorKind::Untrusted,
                &format!("if you know that node, `watari trust {node}` lets its snapshots run"),
            ),
            Error::Display(_) => report(ErrorKind::Qemu, "the machine may be ending; try again"),
            Error::Picture(_) => report(ErrorKind::Internal, "please report it"),
            Error::Keeper(e) => e.report(),
            Error::Qemu(e) => e.report(),
            Error::Disk(e) => disk_report(e, &line),
            Error::Demo(e) => e.report(),
            Error::Random(_) => report(ErrorKind::Io, ""),
            Error::Internal(_) => report(ErrorKind::Internal, "node.log may say more; please report it"),
        }
    }
}

fn each(failed: &[(MachineName, Error)]) -> String {
    let one = |(name, error): &(MachineName, Error)| format!("{name}: {}", ErrorReport::chain(error));
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn disk_report(error: &watari_disk::Error, line: &str) -> ErrorReport {
    use watari_disk::Error as Disk;
    let (kind, hint) = match error {
        _ if error.is_no_space() => (ErrorKind::NoSpace, "make room on that disk and try again"),
        Disk::Io { source, .. } => return io_report(source, line),
        Disk::Damaged { .. } => {
            (ErrorKind::Damaged, "`watari restore NAME --discard` brings the disk back from a snapshot")
        }
        Disk::InUse { .. } => (ErrorKind::WrongState, "`watari list` shows which machine runs"),
        Disk::BadSize { .. } => (ErrorKind::BadRequest, "write for example --disk 10G"),
        Disk::ImageTooBig { .. } => (ErrorKind::BadRequest, "give a larger --disk, or none"),
        Disk::NotAnImage { .. } => (ErrorKind::NotAnImage, "give a raw or qcow2 disk image"),
        Disk::QemuImgMissing => (ErrorKind::QemuMissing, "install the package qemu-utils"),
        _ => (ErrorKind::Io, ""),
    };
    ErrorReport::new(kind, line, hint)
}

fn io_report(source: &io::Error, line: &str) -> ErrorReport {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ErrorReport::new(ErrorKind::NoSpace, line, "make room on that disk and try again")
        }
        io::ErrorKind::NotFound => ErrorReport::new(ErrorKind::Io, line, "check the path"),
        io::ErrorKind::PermissionDenied => {
            ErrorReport::new(ErrorKind::Io, line, "the user Watari runs as may not do that")
        }
        _ => ErrorReport::new(ErrorKind::Io, line, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_do_not_end_are_named_with_the_reason() {
        let failed = [("a", "its QEMU does not end"), ("b", "its keeper does not end")];
        let failed = failed.map(|(name, why)| (name.parse().unwrap(), Error::Internal(why.to_owned())));
        let report = Error::NotEnded(failed.into()).report();
        assert_eq!(report.message, "cannot end a: its QEMU does not end; b: its keeper does not end");
        assert!(report.hint.contains("still runs"));
    }
}
