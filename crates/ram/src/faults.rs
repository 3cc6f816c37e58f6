//! Memory that is not there yet: whoever touches a page of it waits until somebody has put its content there.
//!
//! ```text
//!   watch ──► the process runs ──► it touches a page and waits ──► waiting ──► put ──► it goes on
//!                                                 nobody waits for it: put ──┘
//!   release: all is there, and from now on a page without content is zero, as ever
//! ```
//!
//! The same userfaultfd that tracks writes does this, and pages come with their protection: what is put counts as
//! unwritten. Waiting for pages is done by the kernel also on behalf of system calls and of KVM, which takes a right
//! that not everyone has ([`can_watch`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd};
use rustix::time::Timespec;
use watari_types::PAGE_SIZE;

use crate::birth::RemoteFd;
use crate::memory::system;
use crate::sys::{self, WatchMode};
use crate::write_protect::enable;
use crate::{Error, ProcessMemory, Range};

const PAGE: u64 = PAGE_SIZE as u64;
/// `struct uffd_msg`, and in it what happened, and where.
const MESSAGE: usize = 32;
const KIND: usize = 0;
const ADDRESS: usize = 16;
const PAGEFAULT: u8 = 0x12;

/// Whether a process started by this one can be made to wait for all of its pages, the kernel's own accesses included:
/// root may, and everyone where `vm.unprivileged_userfaultfd` is 1.
pub fn can_watch() -> bool {
    sys::userfaultfd().is_ok()
}

/// A range of a process's memory of which pages may be absent.
#[derive(Debug)]
pub struct Faults {
    pid: u32,
    uffd: OwnedFd,
    start: u64,
    pages: u32,
}

impl Faults {
    /// Begins to watch `range`, a file mapped shared, in process `pid` with its userfaultfd. From now on whoever touches a
    /// page that the file does not hold waits for it. Several may watch at once, and again later; whoever waits already is
    /// reported again.
    ///
    /// # Errors
    /// Nobody waits for anything then. [`Error::System`] also where the descriptor may not handle the kernel's faults.
    pub fn watch(pid: u32, uffd: RemoteFd, range: &Range) -> Result<Faults, Error> {
        range.check()?;
        let memory = ProcessMemory::open(pid)?;
        let failed = |what| move |source| system(what, pid, source);
        let number = ForeignRawFd::from(uffd.0);
        let uffd = pidfd_getfd(memory.pidfd(), number, PidfdGetfdFlags::empty())
            .map_err(|errno| system("taking over the userfaultfd", pid, errno.into()))?;
        enable(uffd.as_fd()).map_err(failed("enabling the userfaultfd"))?;
        sys::uffd_register(uffd.as_fd(), range.start, range.bytes, WatchMode::AbsentAndWritten)
            .map_err(failed("registering a range for absent pages"))?;
        let faults = Faults { pid, uffd, start: range.start, pages: range.pages() };
        // Whom a keeper that has died was told of waits without anyone knowing.
        faults.wake(0..faults.pages)?;
        Ok(faults)
    }

    /// The pages that somebody waits for and that were not reported before; none if there are none within `limit`. A page
    /// may be there by now.
    pub fn waiting(&self, limit: Duration) -> Result<Vec<u32>, Error> {
        let failed = |errno: Errno| system("waiting for page faults", self.pid, errno.into());
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.uffd, PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let mut messages = [0; 64 * MESSAGE];
        let filled = match rustix::io::read(&self.uffd, &mut messages) {
            Err(Errno::AGAIN | Errno::INTR) => 0,
            read => read.map_err(failed)?,
        };
        let faults = messages[..filled].as_chunks::<MESSAGE>().0.iter().filter(|m| m[KIND] == PAGEFAULT);
        let addresses = faults.map(|message| {
            let mut address = [0; 8];
            address.copy_from_slice(&message[ADDRESS..ADDRESS + 8]);
            u64::from_ne_bytes(address)
        });
        Ok(addresses.filter_map(|address| self.page_at(address)).collect())
    }

    /// Puts neighbouring pages, from `first` on, and lets those go on who wait for them. They count as not written.
    /// Returns how many were put: less than there are if the next one is there already, which stays as it is.
    ///
    /// # Errors
    /// Some may have been put. [`Error::Gone`] if the process has ended.
    pub fn put(&self, first: u32, content: &[u8]) -> Result<u32, Error> {
        let address = self.address(first);
        loop {
            match sys::uffd_copy(self.uffd.as_fd(), address, content) {
                Ok(bytes) => return Ok((bytes / PAGE_SIZE) as u32),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EEXIST) => return Ok(0),
                    // The process is changing its mappings just now.
                    Some(libc::EAGAIN) => std::thread::yield_now(),
                    _ => return Err(system("putting pages", self.pid, error)),
                },
            }
        }
    }

    /// Has everyone who waits for one of these pages look again.
    pub fn wake(&self, pages: std::ops::Range<u32>) -> Result<(), Error> {
        let bytes = u64::from(pages.end - pages.start) * PAGE;
        sys::uffd_wake(self.uffd.as_fd(), self.address(pages.start), bytes)
            .map_err(|source| system("waking who waits for pages", self.pid, source))
    }

    /// Nobody waits for any of these pages any more; those without content are zero. All of them lose their protection
    /// against writing: the process stands still, a scan before has told what was written, and what the next one tells of
    /// these pages means nothing.
    ///
    /// # Errors
    /// The pages may be watched or not, and what was written to them is not known until the tracker is armed anew.
    pub fn release(&self, pages: std::ops::Range<u32>) -> Result<(), Error> {
        let (start, bytes) = (self.address(pages.start), u64::from(pages.end - pages.start) * PAGE);
        let failed = |source: io::Error| system("releasing a range", self.pid, source);
        sys::uffd_unregister(self.uffd.as_fd(), start, bytes).map_err(failed)?;
        sys::uffd_register(self.uffd.as_fd(), start, bytes, WatchMode::Written).map_err(failed)
    }

    fn address(&self, page: u32) -> u64 {
        self.start + u64::from(page) * PAGE
    }

    fn page_at(&self, address: u64) -> Option<u32> {
        let page = u32::try_from(address.checked_sub(self.start)? / PAGE).ok()?;
        (page < self.pages).then_some(page)
    }
}
