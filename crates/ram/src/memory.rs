use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use watari_types::PAGE_SIZE;

use crate::sys::{self, MAX_PIECES, Piece};
use crate::{Error, Range};

/// The memory of another process, read and written without its help (`process_vm_readv(2)`; it takes the
/// right to trace the process). Cheap to clone.
#[derive(Clone, Debug)]
pub struct ProcessMemory {
    pid: u32,
    /// Becomes readable when the process ends, and not before that can its number name another process.
    pidfd: Arc<OwnedFd>,
}

impl ProcessMemory {
    /// Opens the memory of a running process. [`Error::Gone`] if it has ended, waited for or not.
    pub fn open(pid: u32) -> Result<Self, Error> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Error::Gone { pid })?;
        let pidfd = pidfd_open(number, PidfdFlags::empty())
            .map_err(|errno| system("pidfd_open", pid, errno.into()))?;
        let memory = ProcessMemory { pid, pidfd: Arc::new(pidfd) };
        memory.check_alive()?;
        Ok(memory)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Fills `into` from `address` on. After an error the content of `into` is undefined.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        self.read_pieces(&[(address, into.len())], into)
    }

    /// Reads `pages` of `range`, in their order, into `into`, which is as long as the pages together.
    /// After an error the content of `into` is undefined.
    ///
    /// Neighbouring pages are read as one piece and up to a thousand pieces with one system call. A range with
    /// a [shared file](crate::Backing::Shared) is read through its file: holes cost nothing and stay holes.
    pub fn read_pages(&self, range: &Range, pages: &[u32], into: &mut [u8]) -> Result<(), Error> {
        let fits = into.len() == pages.len() * PAGE_SIZE && pages.iter().all(|page| *page < range.pages());
        if !fits {
            let (pages, bytes) = (pages.len(), into.len());
            return Err(Error::BadPages { range: range.name.clone(), pages, bytes });
        }
        let pieces: Vec<(u64, usize)> = pages
            .chunk_by(|a, b| a.checked_add(1) == Some(*b))
            .map(|run| (u64::from(run[0]) * PAGE_SIZE as u64, run.len() * PAGE_SIZE))
            .collect();
        match range.backing.shared() {
            Some(file) => read_file(range, file, &pieces, into),
            None => {
                let pieces: Vec<_> = pieces.iter().map(|(at, bytes)| (range.start + at, *bytes)).collect();
                self.read_pieces(&pieces, into)
            }
        }
    }

    /// Copies `from` to `address`. After an error a part of it may have been written.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Error> {
        // Before, not after: what is written to a stranger cannot be taken back. A process that is not waited
        // for keeps its number, so only one reaped by its parent within these lines could be confused.
        self.check_alive()?;
        let mut done = 0;
        while done < from.len() {
            let at = address + done as u64;
            let left = (from.len() - done) as u64;
            done += self.copied(sys::write_process(self.pid, at, &from[done..]), "writing", at, left)?;
        }
        Ok(())
    }

    /// `pieces` are (address, bytes), together as long as `into`.
    fn read_pieces(&self, pieces: &[(u64, usize)], into: &mut [u8]) -> Result<(), Error> {
        let mut rest = into;
        for batch in pieces.chunks(MAX_PIECES) {
            let bytes = batch.iter().map(|(_, bytes)| bytes).sum();
            let (now, later) = rest.split_at_mut(bytes);
            self.read_batch(batch.to_vec(), now)?;
            rest = later;
        }
        // After, not before: it was the right process all the while if it still is.
        self.check_alive()
    }

    fn read_batch(&self, mut pieces: Vec<(u64, usize)>, into: &mut [u8]) -> Result<(), Error> {
        let (mut done, mut first) = (0, 0);
        while done < into.len() {
            let remote: Vec<Piece> =
                pieces[first..].iter().map(|(at, bytes)| sys::piece(*at, *bytes)).collect();
            let (address, bytes) = pieces[first];
            let read = sys::read_process(self.pid, &mut into[done..], &remote);
            let mut copied = self.copied(read, "reading", address, bytes as u64)?;
            done += copied;
            while first < pieces.len() && copied >= pieces[first].1 {
                copied -= pieces[first].1;
                first += 1;
            }
            if let Some(piece) = pieces.get_mut(first) {
                *piece = (piece.0 + copied as u64, piece.1 - copied);
            }
        }
        Ok(())
    }

    /// How much a copy managed; nothing at all is an error.
    fn copied(
        &self,
        result: io::Result<usize>,
        what: &'static str,
        at: u64,
        left: u64,
    ) -> Result<usize, Error> {
        let source = match result {
            Ok(0) => io::Error::from_raw_os_error(libc::EFAULT),
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        self.check_alive()?;
        match source.raw_os_error() {
            Some(libc::ESRCH) => Err(Error::Gone { pid: self.pid }),
            _ => Err(Error::Access { what, pid: self.pid, address: at, bytes: left, source }),
        }
    }

    pub(crate) fn check_alive(&self) -> Result<(), Error> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => Err(Error::Gone { pid: self.pid }),
            Err(errno) => Err(system("polling the pidfd", self.pid, errno.into())),
        }
    }
}

/// `pieces` are (offset, bytes), together as long as `into`.
fn read_file(range: &Range, file: &OwnedFd, pieces: &[(u64, usize)], into: &mut [u8]) -> Result<(), Error> {
    let failed = |offset, source| Error::Backing { range: range.name.clone(), offset, source };
    let mut rest = into;
    for (offset, bytes) in pieces {
        let (mut now, later) = rest.split_at_mut(*bytes);
        let mut at = *offset;
        while !now.is_empty() {
            let read = match rustix::io::pread(file, &mut *now, at) {
                Ok(0) => return Err(failed(at, io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(failed(at, errno.into())),
            };
            now = &mut now[read..];
            at += read as u64;
        }
        rest = later;
    }
    Ok(())
}

/// The error of a failed call on a process: [`Error::Gone`] where that is the reason.
pub(crate) fn system(what: &'static str, pid: u32, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ESRCH) => Error::Gone { pid },
        _ => Error::System { what, pid, source },
    }
}
