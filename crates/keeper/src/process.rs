//! Other processes: whether they are who we think they are, and how they end.

use std::fs;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// When a process started, in clock ticks since boot; `None` if there is no such process, or it is dead and
/// only waits to be buried. Together with its id this names a process for good.
///
/// Source: proc(5), `/proc/PID/stat`, fields 3 and 22.
pub fn process_started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may itself contain anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Waits until a process is gone, whoever's child it is.
pub(crate) fn wait_for_exit(pid: u32) -> std::io::Result<()> {
    let Some(pid) = raw(pid) else { return Ok(()) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Ends a process at once, provided it is still the one that started then.
pub fn kill_if_same(pid: u32, started: u64) {
    if process_started(pid) == Some(started)
        && let Some(pid) = raw(pid)
    {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognised_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = process_started(child.id()).unwrap();
        kill_if_same(child.id(), started + 1);
        assert_eq!(process_started(child.id()), Some(started));
        kill_if_same(child.id(), started);
        wait_for_exit(child.id()).unwrap();
        assert_eq!(process_started(child.id()), None);
        child.wait().unwrap();
    }
}
