//! What happens between fork and exec: a session of its own, and file descriptors at agreed numbers.
//!
//! This is the only unsafe module of the crate.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the process that `command` starts a session leader that has each `fd` open as the given number.
///
/// The descriptors must be numbered above every target, so that placing one never closes another.
pub(crate) fn new_session_with(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    let prepare = move || {
        rustix::process::setsid()?;
        fds.iter().try_for_each(|(fd, number)| place(fd, *number))
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: `prepare` makes the system calls
    // setsid and dup2 and neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
}

/// Duplicates `fd` to `number`, where it stays open over exec.
fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    debug_assert!(fd.as_raw_fd() > number);
    // SAFETY: this runs in the forked child, where nobody owns `number`: whatever was open there is a copy that
    // exec would have closed. `into_raw_fd` below gives the ownership up again, so it is not closed on return.
    let mut target = unsafe { OwnedFd::from_raw_fd(number) };
    let placed = rustix::io::dup2(fd, &mut target);
    let _ = target.into_raw_fd();
    Ok(placed?)
}
