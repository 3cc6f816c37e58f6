//! Processes that end in their own time, or are made to.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A handle on a process that stays with it when its id is used again: pidfd_open(2).
pub(crate) struct Process(OwnedFd);

impl Process {
    /// The process that has this id now; `None` if there is none.
    pub(crate) fn open(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Process)
    }

    /// Sends SIGKILL. A process that is gone already does not mind.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&self) {
        self.poll(None);
    }

    /// Waits until it has ended, or the time is over. Returns whether it has ended.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        self.poll(Some(&limit))
    }

    fn poll(&self, limit: Option<&Timespec>) -> bool {
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_waited_for_and_ended_also_when_it_is_stopped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.ends_within(Duration::from_millis(1)));
        pidfd_send_signal(&process.0, Signal::STOP).unwrap();
        process.kill();
        process.wait();
        assert!(process.ends_within(Duration::ZERO));
        child.wait().unwrap();
        process.kill();
    }
}
