//! Kills a keeper, or its QEMU, at a chosen step of a capture, without its help: a small ptrace(2) tracer.
//!
//! ```text
//!  keeper:  socket ──starts──▶ request ──starts──▶ disk-flush        seen from here: these three, nothing else
//!                                 │ each call that changes something outside = a step, in one order
//!                                 ▼
//!  leading up: scans, pages into the pack, stop … cont │ publishing: from the pack's fsync to the answer
//! ```
//!
//! A step is the moment *before* its call: a keeper that is killed there has done every step before it, and not this
//! one. QEMU is dead to its last thread before the keeper makes the call.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::lab::{PATIENCE, kill, text, wait};

/// Before which step of the next capture the victim is killed. The first one is 1.
///
/// How many pages are copied before the pause differs from capture to capture, so the steps leading up are counted
/// by call: the second command is `xen-save-devices-state` each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    Never,
    LeadingUp(&'static str, usize),
    Publishing(usize),
}

/// A call that changes something outside of the keeper, and what it changes.
pub(crate) struct Step {
    pub(crate) call: &'static str,
    pub(crate) on: String,
}

/// What was seen of a capture.
#[derive(Default)]
pub(crate) struct Seen {
    /// All steps in order, up to the kill. The last one was not done before it.
    pub(crate) steps: Vec<Step>,
    pub(crate) killed: bool,
}

impl Seen {
    /// The steps leading up to the publishing, as places to cut.
    pub(crate) fn leading_up(&self) -> Vec<Cut> {
        let steps = &self.steps[..self.publishing()];
        let count = |call: &str, upto: usize| steps[..=upto].iter().filter(|step| step.call == call).count();
        (0..).zip(steps).map(|(at, step)| Cut::LeadingUp(step.call, count(step.call, at))).collect()
    }

    /// Where publishing begins: the first file that is synced is the pack. A disk is synced with fdatasync.
    fn publishing(&self) -> usize {
        self.steps.iter().position(|step| step.call == "fsync").unwrap_or(self.steps.len())
    }

    /// Whether a step was done, before the kill, that made `call` on something whose name contains `on`.
    pub(crate) fn did(&self, call: &str, on: &str) -> bool {
        let done = self.steps.len() - usize::from(self.killed);
        self.steps[..done].iter().any(|step| step.call == call && step.on.contains(on))
    }
}

/// A keeper that is being watched.
pub(crate) struct Watched(Receiver<Seen>);

impl Watched {
    /// Waits for the end of the capture, or of the keeper.
    pub(crate) fn seen(self) -> Seen {
        self.0.recv_timeout(PATIENCE).unwrap()
    }
}

/// Watches the next capture of a keeper, and kills `victim` (the keeper, or its QEMU) in it. On return it is being
/// watched; an error means that it cannot be.
pub(crate) fn watch(keeper: u32, cut: Cut, victim: u32) -> Result<Watched, Errno> {
    let (attached, is_attached) = mpsc::channel();
    let (done, seen) = mpsc::channel();
    // ptrace is between threads: when this one ends, what it still traces goes on by itself.
    thread::spawn(move || {
        let socket = thread_named(keeper, "socket");
        let seized = ptrace::seize(socket, Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACESYSGOOD);
        attached.send(seized).unwrap();
        if seized.is_ok() {
            let mut tracer = Tracer { keeper, victim, socket, cut, request: None, seen: Seen::default() };
            tracer.follow();
            let _ = done.send(tracer.seen);
        }
    });
    is_attached.recv().unwrap().map(|()| Watched(seen))
}

fn thread_named(process: u32, name: &str) -> Pid {
    let mut threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let found = threads.find(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name));
    Pid::from_raw(found.unwrap().file_name().to_str().unwrap().parse().unwrap())
}

/// Whether nothing of a process runs any more. Its parent, the keeper, may not have asked for its end yet.
fn has_ended(process: u32) -> bool {
    let Ok(mut threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.all(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status"));
        status.map_or(true, |status| status.contains("State:\tZ") || status.contains("State:\tX"))
    })
}

struct Tracer {
    keeper: u32,
    victim: u32,
    socket: Pid,
    cut: Cut,
    /// The thread that the capture runs on.
    request: Option<Pid>,
    seen: Seen,
}

impl Tracer {
    fn follow(&mut self) {
        // Only what this very thread traces, not the test's other children.
        let mine = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            // A thread that cannot be made to go on is being killed: its end is told next.
            match waitpid(None, Some(mine)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    self.look_at(thread);
                    let _ = ptrace::syscall(thread, None);
                }
                Ok(WaitStatus::PtraceEvent(thread, ..)) if thread == self.socket => {
                    let _ = ptrace::cont(thread, None);
                }
                Ok(WaitStatus::PtraceEvent(thread, ..)) => {
                    self.request.get_or_insert(thread);
                    let _ = ptrace::syscall(thread, None);
                }
                Ok(WaitStatus::Stopped(thread, signal)) => {
                    let _ = ptrace::syscall(thread, signal);
                }
                Ok(WaitStatus::Exited(thread, _)) if Some(thread) == self.request => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return,
                Err(error) => panic!("waiting for the keeper: {error}"),
            }
        }
    }

    fn look_at(&mut self, thread: Pid) {
        let entering = ptrace::syscall_info(thread).is_ok_and(|i| i.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if self.seen.killed || !entering {
            return;
        }
        let Some(step) = ptrace::getregs(thread).ok().and_then(|registers| self.step(&registers)) else {
            return;
        };
        self.seen.steps.push(step);
        if self.is_the_cut() {
            self.kill();
            self.seen.killed = true;
        }
    }

    /// A keeper cannot end before its threads are let go; QEMU does, and is awaited.
    fn kill(&self) {
        kill(self.victim);
        if self.victim != self.keeper {
            wait("QEMU to be dead", || has_ended(self.victim).then_some(()));
        }
    }

    fn is_the_cut(&self) -> bool {
        match self.cut {
            Cut::Never => false,
            Cut::LeadingUp(..) => self.seen.leading_up().last() == Some(&self.cut),
            Cut::Publishing(number) => number == self.seen.steps.len() - self.seen.publishing(),
        }
    }

    /// The call that a thread is about to make, if it changes anything.
    fn step(&self, registers: &libc::user_regs_struct) -> Option<Step> {
        let [first, second, third, fourth] = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let (call, on) = match registers.orig_rax as i64 {
            libc::SYS_openat if third as i32 & libc::O_CREAT != 0 => ("create", self.text_at(second)),
            libc::SYS_pwrite64 => ("pwrite64", self.file(first)),
            libc::SYS_write => ("write", self.file(first)),
            libc::SYS_ftruncate => ("ftruncate", self.file(first)),
            libc::SYS_fsync => ("fsync", self.file(first)),
            libc::SYS_fdatasync => ("fdatasync", self.file(first)),
            libc::SYS_ioctl => ("ioctl", self.file(first)),
            libc::SYS_rename => ("rename", self.text_at(second)),
            libc::SYS_renameat => ("renameat", self.text_at(fourth)),
            libc::SYS_renameat2 => ("renameat2", self.text_at(fourth)),
            libc::SYS_linkat => ("linkat", self.text_at(fourth)),
            libc::SYS_unlink => ("unlink", self.text_at(first)),
            libc::SYS_unlinkat => ("unlinkat", self.text_at(second)),
            libc::SYS_mkdir => ("mkdir", self.text_at(first)),
            libc::SYS_sendto => {
                let said = self.text_at(second);
                (if said.contains("\"execute\"") { "command" } else { "sendto" }, said)
            }
            libc::SYS_clone3 => ("clone3", "a thread".to_owned()),
            // QEMU was told something and has not answered yet.
            libc::SYS_futex if self.seen.steps.last().is_some_and(|step| step.call == "command") => {
                ("wait", "QEMU's answer".to_owned())
            }
            _ => return None,
        };
        Some(Step { call, on })
    }

    fn file(&self, descriptor: u64) -> String {
        let path = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.keeper));
        path.map_or_else(|_| format!("descriptor {descriptor}"), |path| path.display().to_string())
    }

    /// The beginning of a text in the keeper's memory.
    fn text_at(&self, address: u64) -> String {
        let mut bytes = [0; 256];
        let memory = File::open(format!("/proc/{}/mem", self.keeper));
        let read = memory.and_then(|memory| memory.read_at(&mut bytes, address)).unwrap_or(0);
        text(bytes[..read].split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or_default())
    }
}
