//! What can go wrong around one machine, and what a person can do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use watari_types::{
    ErrorKind, ErrorReport, Generation, MachineName, RegionName, RegionNameError, SnapshotId,
};

/// What can go wrong around one machine. Unless a variant says otherwise, the machine is as it was before.
#[derive(Debug, Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: String,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A disk refused.
    #[error("cannot {what} the machine's disk")]
    DiskIo {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Guest memory could not be had.
    #[error("cannot get {} MiB of memory", bytes >> 20)]
    Memory {
        /// How much was wanted.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// Device state could not be passed to or from QEMU.
    #[error("cannot pass the device state")]
    DeviceState {
        /// Why not.
        source: io::Error,
    },
    /// The home's path leaves no room for a socket's name.
    #[error("{} is {over} bytes too long for a socket's address", path.display())]
    HomeTooLong {
        /// The machine's run folder.
        path: PathBuf,
        /// By how much.
        over: usize,
    },
    /// Somebody else made the folder of memory heads.
    #[error("{} belongs to user {owner}", path.display())]
    ForeignHeads {
        /// The folder.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// A file of the machine is not what Watari wrote.
    #[error("{} is damaged", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `machine.toml` is not what Watari wrote.
    #[error("{} is damaged", path.display())]
    BadToml {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The snapshot has no such region.
    #[error("snapshot {snapshot} has no {region}")]
    NoRegion {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The region.
        region: RegionName,
    },
    /// The snapshot holds disks only.
    #[error("snapshot {snapshot} holds no memory to resume")]
    NoMemoryImage {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// QEMU's RAM blocks are not those of the snapshot.
    #[error("this QEMU's RAM block {block} is not what the snapshot has")]
    MissingBlock {
        /// The block.
        block: String,
    },
    /// A RAM block that is not made of pages.
    #[error("QEMU's RAM block {block} of {bytes} bytes is not made of pages")]
    OddBlock {
        /// The block.
        block: String,
        /// Its size.
        bytes: u64,
    },
    /// A RAM block whose name cannot be a region's.
    #[error(transparent)]
    Region(#[from] RegionNameError),
    /// There is no such process any more.
    #[error("QEMU (process {pid}) is gone")]
    NotThere {
        /// Its id.
        pid: u32,
    },
    /// The keeper died before the guest ran. Its QEMU was ended.
    #[error("the machine's keeper died before the guest ran")]
    NeverRan,
    /// QEMU ended before its guest ran.
    #[error("QEMU ended at once: {reason}")]
    QemuDied {
        /// The last line of its log.
        reason: String,
    },
    /// Another process runs the machine.
    #[error("{name} is already running")]
    AlreadyRunning {
        /// The machine.
        name: MachineName,
    },
    /// The guest did not power off in time. It still runs.
    #[error("{name} has not powered off within {seconds} s")]
    StillRunning {
        /// The machine.
        name: MachineName,
        /// How long was waited.
        seconds: u64,
    },
    /// A guest that is held cannot do anything.
    #[error("{name} is paused and cannot power off by itself")]
    HeldGuest {
        /// The machine.
        name: MachineName,
    },
    /// A guest that is held takes nothing.
    #[error("{name} is held, and takes no keys and no pointer")]
    Untouchable {
        /// The machine.
        name: MachineName,
    },
    /// A core could not be written.
    #[error("cannot write the core")]
    Core {
        /// Why not.
        source: io::Error,
    },
    /// The connection over which a machine goes to another keeper, or comes from one, is cut; or what came over it is wrong.
    #[error("the machine's way from one node to the other is cut")]
    Migration {
        /// Why.
        source: io::Error,
    },
    /// The machine runs, or ran, while a part of what it holds is on the node that it came from.
    #[error("what it holds is not all here: {generation} of it is still to come")]
    NotWhole {
        /// The snapshot that holds the rest.
        generation: Generation,
    },
    /// The kernel cannot make a guest wait for memory that is elsewhere.
    #[error("the host cannot make a guest wait for its memory")]
    CannotBorrow,
    /// The guest writes faster than the connection takes it. It runs on.
    #[error("it writes faster than the connection takes it, and would stand still for some {seconds} s")]
    TooBusy {
        /// How long.
        seconds: u64,
    },
    /// A restore was to keep what the machine leaves behind, and could not. The machine runs on.
    #[error("what the machine leaves behind cannot be kept")]
    NotKept(#[source] Box<Error>),
    /// The machine has no network card.
    #[error("the machine has no network card")]
    NoNic,
    /// The tracker failed.
    #[error("cannot tell which pages were written")]
    Ram(#[source] watari_ram::Error),
    /// The disk engine failed.
    #[error("the machine's disk failed")]
    Disk(#[from] watari_disk::Error),
    /// QEMU failed.
    #[error(transparent)]
    Qemu(#[from] watari_qemu::Error),
    /// The store failed. Nothing was published.
    #[error(transparent)]
    Store(#[from] watari_store::Error),
    /// Something that should not happen.
    #[error("internal error: {0}")]
    Internal(String),
}

const DISKS_ANEW: &str = "`watari restore NAME --discard` makes the machine's disks anew from a snapshot";

/// That a restore could not keep what the machine leaves behind, and so did not happen.
pub fn not_kept(why: &ErrorReport) -> ErrorReport {
    let message = format!("what the machine leaves behind cannot be kept: {}", why.message);
    let first = if why.hint.is_empty() { String::new() } else { format!("{}; ", why.hint) };
    ErrorReport::new(why.kind, message, format!("{first}`watari restore REV --discard` does not keep it"))
}

impl From<watari_ram::Error> for Error {
    /// A process that is gone is no fault of the tracker's, which may be the first to notice.
    fn from(error: watari_ram::Error) -> Error {
        match error {
            watari_ram::Error::Gone { pid } => Error::NotThere { pid },
            error => Error::Ram(error),
        }
    }
}

impl Error {
    /// For `map_err`: the operating system refused to do `what` with `path`.
    pub fn io<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io { what: what.to_owned(), path: path.to_owned(), source }
    }

    /// For `map_err`: a disk refused to do `what`.
    pub(crate) fn disk(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::DiskIo { what, source }
    }

    /// The error as a person sees it, with what to do about it.
    pub fn report(&self) -> ErrorReport {
        let (kind, hint) = match self {
            Error::Store(error) => return error.report(),
            Error::Qemu(error) => return error.report(),
            Error::NotKept(error) => return not_kept(&error.report()),
            Error::Io { source, .. }
            | Error::DiskIo { source, .. }
            | Error::DeviceState { source }
            | Error::Core { source } => io_kind(source),
            Error::Memory { .. } => {
                (ErrorKind::NotEnoughMemory, "stop another machine, or create this one with less --memory")
            }
            Error::HomeTooLong { .. } => {
                (ErrorKind::BadRequest, "use a shorter WATARI_HOME, or a shorter machine name")
            }
            Error::ForeignHeads { .. } => (ErrorKind::Io, "remove that folder, or have its owner do it"),
            Error::BadJson { .. } | Error::BadToml { .. } => {
                (ErrorKind::Damaged, "restore the file, or clone the machine's last snapshot into a new one")
            }
            Error::NoRegion { .. } | Error::NoMemoryImage { .. } => (ErrorKind::BadRevision, ""),
            Error::MissingBlock { .. } => {
                (ErrorKind::Qemu, "resume it with the QEMU version that `watari show` names")
            }
            Error::AlreadyRunning { .. } => (ErrorKind::WrongState, "`watari list` shows what it is doing"),
            Error::StillRunning { .. } => (ErrorKind::WrongState, "`watari kill NAME` ends it at once"),
            Error::HeldGuest { .. } => {
                (ErrorKind::WrongState, "`watari resume NAME` first, or `watari kill NAME`")
            }
            Error::Untouchable { .. } => (ErrorKind::WrongState, "`watari resume NAME` first"),
            Error::NoNic => (ErrorKind::WrongState, ""),
            Error::NotWhole { .. } => (
                ErrorKind::WrongState,
                "while it runs, wait until it has come (`watari show NAME`); else `watari restore NAME --discard` goes \
                 back to what is here, and `watari resume NAME --here` on the node that it came from goes on there",
            ),
            Error::CannotBorrow => {
                (ErrorKind::WrongState, "move it without --lazy; `watari doctor` says what the host lacks")
            }
            Error::Migration { .. } => (
                ErrorKind::Unreachable,
                "`watari list` shows where it runs; try again when `watari nodes` shows both",
            ),
            Error::TooBusy { .. } => (
                ErrorKind::WrongState,
                "it runs on; try again when it does less, or over a faster connection",
            ),
            Error::QemuDied { .. } | Error::NotThere { .. } | Error::NeverRan => (
                ErrorKind::Qemu,
                "qemu.log in the machine's folder says more; `watari doctor` tests the host",
            ),
            Error::Ram(_) => (ErrorKind::Io, "`watari doctor` tests the host"),
            Error::Disk(watari_disk::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                (ErrorKind::Io, DISKS_ANEW)
            }
            Error::Disk(watari_disk::Error::Damaged { .. }) => (ErrorKind::Damaged, DISKS_ANEW),
            Error::Disk(_) => (ErrorKind::Io, ""),
            Error::OddBlock { .. } | Error::Region(_) | Error::Internal(_) => (ErrorKind::Internal, ""),
        };
        ErrorReport::new(kind, ErrorReport::chain(self), hint)
    }
}

fn io_kind(source: &io::Error) -> (ErrorKind, &'static str) {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::NoSpace, "free some space on that file system and try again")
        }
        _ => (ErrorKind::Io, ""),
    }
}
