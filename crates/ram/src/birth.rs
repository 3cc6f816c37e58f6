//! A process is born with a userfaultfd in it: the call has to be made by the process itself, because the
//! descriptor belongs to the memory of its caller; and at the end of `exec` there is exactly one thread, at a
//! known place, which has not run an instruction yet.
//!
//! ```text
//!   spawn ─ fork ─► child: block signals, TRACEME, exec ─► stopped at its first instruction
//!     └─ returns after the exec                               │ poke `syscall`, step, restore
//!                                     runs, none the wiser ◄──┘ detach
//! ```

use std::process::{Child, Command};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::sys;

/// A descriptor by its number *in another process*. To be written down, so that another keeper can adopt the
/// process later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemoteFd(pub i32);

/// A process just started.
#[derive(Debug)]
pub struct Born {
    /// The process. It runs already.
    pub child: Child,
    /// The userfaultfd over its memory; `None` where the kernel or its settings do not allow one.
    pub uffd: Option<RemoteFd>,
    /// Whether the kernel's own accesses to absent pages wait as well: whether there may be absent pages
    /// ([`Faults`](crate::Faults)).
    pub kernel_waits: bool,
}

/// Starts `command` with a userfaultfd over its memory. The process does not notice, apart from one more open
/// descriptor (close-on-exec, so its own children do not get it).
///
/// `command` is prepared for this and must not be spawned again.
///
/// # Errors
/// [`Error::Spawn`] if it could not be started, [`Error::Birth`] if it had to be killed. That no userfaultfd
/// could be had is no error.
pub fn spawn(command: &mut Command) -> Result<Born, Error> {
    let failed = |command: &Command, source| Error::Spawn {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    };
    if cfg!(not(target_arch = "x86_64")) {
        let child = command.spawn().map_err(|source| failed(command, source))?;
        return Ok(Born { child, uffd: None, kernel_waits: false });
    }
    let mask = sys::signal_mask().map_err(|source| failed(command, source))?;
    sys::stop_at_exec(command);
    let mut child = command.spawn().map_err(|source| failed(command, source))?;
    let pid = child.id();
    match equip(pid, &mask) {
        Ok(made) => Ok(Born {
            child,
            uffd: made.map(|uffd| uffd.fd),
            kernel_waits: made.is_some_and(|uffd| uffd.kernel_waits),
        }),
        Err(source) => {
            // It may be stopped for ever, or about to run code that is not its own.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::warn!(pid, %error, "a process that could not be released could not be killed either");
            }
            Err(Error::Birth { pid, source })
        }
    }
}

/// What a process was given.
#[derive(Clone, Copy)]
struct Uffd {
    fd: RemoteFd,
    kernel_waits: bool,
}

#[cfg(not(target_arch = "x86_64"))]
fn equip(_pid: u32, _mask: &sys::SignalMask) -> std::io::Result<Option<Uffd>> {
    Ok(None)
}

#[cfg(target_arch = "x86_64")]
use exec_stop::equip;

#[cfg(target_arch = "x86_64")]
mod exec_stop {
    use std::io;

    use libc::user_regs_struct;
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    use super::{RemoteFd, Uffd};
    use crate::sys::{self, SignalMask, Tracee};

    const SYSCALL: u64 = 0x050f;
    const USERMODE_64_BIT_CS: u64 = 0x33;
    const UFFD_USER_MODE_ONLY: i32 = 1;
    const YAMA_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

    /// Waits for the exec stop of our child, makes the descriptor and lets the child run with `mask`. An error
    /// means the child is not in order and must not go on.
    pub(super) fn equip(pid: u32, mask: &SignalMask) -> io::Result<Option<Uffd>> {
        if !is_traced(pid)? {
            tracing::warn!(pid, "the process may not be traced, so it gets no userfaultfd");
            return Ok(None);
        }
        match at_the_stop(pid, mask) {
            // The child died meanwhile. Its parent finds that out by waiting for it, as for any other death.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            other => other,
        }
    }

    fn at_the_stop(pid: u32, mask: &SignalMask) -> io::Result<Option<Uffd>> {
        wait_for_trap(pid)?;
        let child = Tracee(pid.cast_signed());
        let saved = child.registers()?;
        let uffd = match instruction(pid, &saved) {
            Some(word) => borrow(&child, &saved, word)?,
            None => None,
        };
        child.set_signal_mask(mask)?;
        child.detach()?;
        Ok(uffd)
    }

    /// The first eight bytes the child is going to run; `None` if these are not 64-bit code.
    fn instruction(pid: u32, registers: &user_regs_struct) -> Option<u64> {
        let mut word = [0; 8];
        let piece = sys::piece(registers.rip, word.len());
        let read = sys::read_process(pid, &mut word, &[piece]);
        let whole = registers.cs == USERMODE_64_BIT_CS && read.is_ok_and(|bytes| bytes == word.len());
        whole.then_some(u64::from_le_bytes(word))
    }

    /// Runs our system calls at the child's first instruction and restores what was there.
    fn borrow(child: &Tracee, saved: &user_regs_struct, word: u64) -> io::Result<Option<Uffd>> {
        child.poke(saved.rip, word & !0xffff | SYSCALL)?;
        let made = make_uffd(child, saved);
        child.poke(saved.rip, word)?;
        child.set_registers(saved)?;
        match made {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(error),
            Err(error) => {
                tracing::warn!(pid = child.0, %error, "no userfaultfd could be made in the process");
                Ok(None)
            }
            Ok(uffd) => {
                tracing::debug!(pid = child.0, fd = uffd.fd.0, "a userfaultfd was made in the process");
                Ok(Some(uffd))
            }
        }
    }

    fn make_uffd(child: &Tracee, saved: &user_regs_struct) -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let open = |flags: i32| call(child, saved, libc::SYS_userfaultfd, [flags as u64, 0]);
        // Without the right to handle the kernel's own faults it can still have those of user mode handled.
        // Asynchronous write protection, which nobody handles, sees the kernel's writes either way.
        let (fd, kernel_waits) = match open(flags) {
            Ok(fd) => (fd, true),
            Err(_) => (open(flags | UFFD_USER_MODE_ONLY)?, false),
        };
        if needs_yama_exception() {
            // A keeper that adopts the process is no ancestor of it, which Yama's scope 1 asks for. This lifts
            // Yama's limit for this one process: any process of the same user may then trace it, as on
            // systems without Yama. All other checks (same user, dumpable) stay.
            let arguments = [libc::PR_SET_PTRACER as u64, libc::PR_SET_PTRACER_ANY];
            if let Err(error) = call(child, saved, libc::SYS_prctl, arguments) {
                tracing::warn!(pid = child.0, %error, "only this process will be able to track its memory");
            }
        }
        let fd = i32::try_from(fd).map(RemoteFd).map_err(io::Error::other)?;
        Ok(Uffd { fd, kernel_waits })
    }

    /// Runs one system call in the stopped child, at an instruction that is `syscall` for now.
    fn call(child: &Tracee, saved: &user_regs_struct, number: i64, arguments: [u64; 2]) -> io::Result<i64> {
        let mut registers = *saved;
        registers.rax = number.cast_unsigned();
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi] = arguments;
        child.set_registers(&registers)?;
        child.single_step()?;
        wait_for_trap(child.0.cast_unsigned())?;
        let after = child.registers()?;
        if after.rip != saved.rip + 2 {
            return Err(io::Error::other("the injected system call did not run"));
        }
        match after.rax.cast_signed() {
            errno @ -4095..0 => Err(io::Error::from_raw_os_error(-errno as i32)),
            result => Ok(result),
        }
    }

    /// Waits until the child stands still. `ESRCH` if it died instead; it stays to be waited for by its owner.
    ///
    /// All signals that could be blocked are, so a stop for another reason than our own trap is a fault of the
    /// injected instruction (a seccomp filter's SIGSYS) or a stray SIGSTOP; the caller sees that from the
    /// registers.
    fn wait_for_trap(pid: u32) -> io::Result<()> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let child = Pid::from_raw(pid.cast_signed()).ok_or_else(gone)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(child), options) {
                Ok(Some(status)) if status.trapped() => return Ok(()),
                Ok(_) => return Err(gone()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn is_traced(pid: u32) -> io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(!status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"])))
    }

    fn needs_yama_exception() -> bool {
        let scope = std::fs::read_to_string(YAMA_SCOPE).unwrap_or_default();
        scope.trim() == "1" && !rustix::process::geteuid().is_root()
    }
}
