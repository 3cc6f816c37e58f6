use std::fmt;

use serde::{Deserialize, Serialize};
use watari_types::PageSet;

use crate::birth::RemoteFd;
use crate::compare::Compare;
use crate::write_protect::WriteProtect;
use crate::{Error, ProcessMemory, Range};

/// Knows which pages of the armed ranges were written.
///
/// A page counts as written unless it is *proven* unwritten, so a page may be reported without need, but not
/// missed. Three things lie outside the promise:
/// - Writes through *another* mapping of a range's file; whoever makes them has to report them.
/// - A page punched out of the file (or dropped from private memory) and then only *read* before the next
///   scan, or brought back by a write that has not been done yet: it is zero, or as the file below, and is not
///   reported. Nobody may rely on the content of such a page (virtio leaves it undefined), and the write is seen as
///   ever.
/// - For the compare tracker, two contents of equal 128-bit hash.
pub trait Tracker: Send {
    /// Which of the two it is.
    fn kind(&self) -> TrackerKind;

    /// Adds to `into[i]` every page of range `i` that may have been written, punched out or otherwise lost its
    /// protection since the previous scan (the first scan: since [`arm`]), and starts counting anew, atomically
    /// per page: a write is in this scan or in the next, never in neither. So a page has to be read *after*
    /// the scan that reports it. Where there is no file to ask, a page that is not in memory and was not empty from
    /// the beginning is reported until it is read.
    ///
    /// # Errors
    /// `into` then holds the pages found so far, and these will *not* be reported again; all others will.
    fn scan(&mut self, into: &mut [PageSet]) -> Result<(), Error>;

    /// Says: the process has been standing still since before the last scan (or since before [`arm`]), still
    /// stands still, and the content of every page reported is known as it is now.
    ///
    /// Write protection does not need to be told, and this does nothing. The compare tracker cannot see a page
    /// change to and fro between its scan and the caller's reading, so it reports a page again and again until
    /// it is told that a reading was sound. Never calling this costs time, never pages.
    fn settle(&mut self) {}
}

/// The kinds of tracker there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackerKind {
    /// The kernel notes the first write to each page: about a millisecond per GiB and scan.
    WriteProtect,
    /// Every page is read and its hash compared with the last one: tenths of a second per GiB and scan.
    Compare,
}

impl fmt::Display for TrackerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrackerKind::WriteProtect => "write-protect",
            TrackerKind::Compare => "compare",
        })
    }
}

/// Which tracker is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerChoice {
    /// Write protection where there is a userfaultfd and the kernel can, else comparing.
    Best,
    /// Comparing.
    Compare,
}

/// Arms tracking of `ranges` in process `pid`, whose userfaultfd is `uffd`. After it returns, pages written
/// before count as *not* written: the caller knows their content or treats all pages as written. May be called
/// by the process that spawned it or by any other that may trace it, and again later.
///
/// A compare tracker reports every page at every scan until [`Tracker::settle`] is called: right away if the
/// process stands still and its content is known.
///
/// # Errors
/// The process goes on unchanged. That write protection is not to be had is no error with
/// [`TrackerChoice::Best`].
pub fn arm(
    pid: u32,
    uffd: Option<RemoteFd>,
    ranges: Vec<Range>,
    choice: TrackerChoice,
) -> Result<Box<dyn Tracker>, Error> {
    ranges.iter().try_for_each(Range::check)?;
    let memory = ProcessMemory::open(pid)?;
    if let (TrackerChoice::Best, Some(uffd)) = (choice, uffd) {
        match WriteProtect::arm(&memory, uffd, &ranges) {
            Ok(tracker) => return Ok(Box::new(tracker)),
            Err(Error::Gone { pid }) => return Err(Error::Gone { pid }),
            Err(error) => {
                tracing::warn!(pid, error = &error as &dyn std::error::Error, "comparing pages instead");
            }
        }
    }
    Ok(Box::new(Compare::arm(memory, ranges)?))
}

/// One set per range, or nothing may happen.
pub(crate) fn check_sets(ranges: usize, into: &[PageSet]) -> Result<(), Error> {
    if into.len() == ranges { Ok(()) } else { Err(Error::WrongSets { ranges, sets: into.len() }) }
}
