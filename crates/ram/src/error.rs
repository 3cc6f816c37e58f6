use std::io;

use thiserror::Error;
use watari_types::RegionName;

/// What can go wrong with another process's memory.
#[derive(Debug, Error)]
pub enum Error {
    /// The command could not be started; nothing runs.
    #[error("starting {program} failed")]
    Spawn {
        /// The program that was to be run.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The process was born but could not be put back the way it was; it has been killed.
    #[error("process {pid} could not be released after its birth and was killed")]
    Birth {
        /// The process.
        pid: u32,
        /// What the operating system said.
        source: io::Error,
    },
    /// The process has ended (another one may have its number by now).
    #[error("process {pid} is gone")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// A system call on the process was refused or failed.
    #[error("{what} failed for process {pid}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The process.
        pid: u32,
        /// What the operating system said.
        source: io::Error,
    },
    /// Part of the memory could not be read or written.
    #[error("{what} {bytes} bytes at {address:#x} of process {pid} failed")]
    Access {
        /// `reading` or `writing`.
        what: &'static str,
        /// The process.
        pid: u32,
        /// The first address that could not be had.
        address: u64,
        /// How many bytes were still to go.
        bytes: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file behind a range could not be read.
    #[error("reading the file behind {range} at byte {offset} failed")]
    Backing {
        /// The range.
        range: RegionName,
        /// Where in the file.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The range is empty, not page-aligned, or larger than a region may be. Nothing was changed.
    #[error("{range} at {start:#x} with {bytes} bytes is not a range of whole pages")]
    BadRange {
        /// The range.
        range: RegionName,
        /// Its address.
        start: u64,
        /// Its length.
        bytes: u64,
    },
    /// A page outside the range, or a buffer of another size than the pages asked for. Nothing was changed.
    #[error(
        "{pages} pages of {range} were asked for with a buffer of {bytes} bytes, or one lies outside of it"
    )]
    BadPages {
        /// The range.
        range: RegionName,
        /// How many pages were asked for.
        pages: usize,
        /// How long the buffer was.
        bytes: usize,
    },
    /// The caller's sets do not match the ranges that were armed. Nothing was scanned.
    #[error("{ranges} ranges are tracked, but {sets} sets were given to hold their pages")]
    WrongSets {
        /// How many ranges are tracked.
        ranges: usize,
        /// How many sets were given.
        sets: usize,
    },
    /// Write-protect tracking gave a wrong answer on this host.
    #[error("write-protect tracking does not work here: {0}")]
    SelfTest(&'static str),
}
