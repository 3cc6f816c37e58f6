//! The system calls that neither std nor rustix offers: the only `unsafe` of the crate. Each function is a
//! plain call with slices and numbers; what the calls are for is written where they are used.

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Signals a thread may receive or not.
pub(crate) type SignalMask = libc::sigset_t;

fn exchange_signal_mask(how: i32, new: Option<&SignalMask>) -> io::Result<SignalMask> {
    // SAFETY: an all-zero sigset_t is a valid (empty) one.
    let mut old: SignalMask = unsafe { std::mem::zeroed() };
    let new = new.map_or(std::ptr::null(), |set| set as *const SignalMask);
    // SAFETY: `new` is null or a valid set, `old` is a valid set of our own.
    match unsafe { libc::pthread_sigmask(how, new, &mut old) } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The calling thread's signal mask, which a child it starts inherits.
pub(crate) fn signal_mask() -> io::Result<SignalMask> {
    exchange_signal_mask(libc::SIG_BLOCK, None)
}

/// Makes the process that `command` starts stop, traced by the calling thread, at the end of its `exec`,
/// with all signals blocked but SIGTRAP: any other one would stop it *before* the exec, where `spawn` waits
/// for it and nobody would let it go on. A process that may not be traced runs on with its mask unchanged.
pub(crate) fn stop_at_exec(command: &mut Command) {
    let stop = || {
        // SAFETY: an all-zero sigset_t is a valid set for sigfillset and sigdelset to work on.
        let mut all_but_trap: SignalMask = unsafe { std::mem::zeroed() };
        // SAFETY: the set is our own; both calls only write to it.
        unsafe {
            libc::sigfillset(&mut all_but_trap);
            libc::sigdelset(&mut all_but_trap, libc::SIGTRAP);
        }
        let inherited = exchange_signal_mask(libc::SIG_SETMASK, Some(&all_but_trap))?;
        // SAFETY: PTRACE_TRACEME ignores its other arguments.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } == -1 {
            exchange_signal_mask(libc::SIG_SETMASK, Some(&inherited))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes async-signal-safe calls only and does not allocate.
    unsafe { command.pre_exec(stop) };
}

/// A stopped process that the calling thread traces.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Tracee(pub(crate) libc::pid_t);

#[cfg(target_arch = "x86_64")]
impl Tracee {
    pub(crate) fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: the struct is integers only, for which all zeros is valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: PTRACE_GETREGS writes one user_regs_struct to `data`.
        check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0, 0, &raw mut registers) })?;
        Ok(registers)
    }

    pub(crate) fn set_registers(&self, registers: &libc::user_regs_struct) -> io::Result<()> {
        // SAFETY: PTRACE_SETREGS reads one user_regs_struct from `data`.
        check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.0, 0, &raw const *registers) }).map(drop)
    }

    /// Writes eight bytes of code, also where the process itself may not write.
    pub(crate) fn poke(&self, address: u64, word: u64) -> io::Result<()> {
        // SAFETY: PTRACE_POKETEXT takes numbers only; it changes the other process's memory, not ours.
        check(unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.0, address, word) }).map(drop)
    }

    pub(crate) fn set_signal_mask(&self, mask: &SignalMask) -> io::Result<()> {
        const KERNEL_MASK_BYTES: usize = 8;
        let request = libc::PTRACE_SETSIGMASK;
        // SAFETY: the kernel reads eight bytes at `data`, and a sigset_t begins with just these.
        check(unsafe { libc::ptrace(request, self.0, KERNEL_MASK_BYTES, &raw const *mask) }).map(drop)
    }

    /// Lets it run one instruction; the next stop is to be waited for.
    pub(crate) fn single_step(&self) -> io::Result<()> {
        // SAFETY: PTRACE_SINGLESTEP takes numbers only.
        check(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0, 0, 0) }).map(drop)
    }

    pub(crate) fn detach(&self) -> io::Result<()> {
        // SAFETY: PTRACE_DETACH takes numbers only.
        check(unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) }).map(drop)
    }
}

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

/// `UFFDIO_API`: chooses the features of a fresh userfaultfd. `EINVAL` if it was done before, or if the kernel
/// lacks a feature.
pub(crate) fn uffd_enable(uffd: BorrowedFd<'_>, features: u64) -> io::Result<()> {
    const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
    let mut argument = UffdioApi { api: 0xAA, features, ioctls: 0 };
    // SAFETY: the argument has the layout of struct uffdio_api, and the ioctl touches nothing else of ours.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API, &raw mut argument) }.into()).map(drop)
}

/// What is to be known of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchMode {
    /// Which pages are written.
    Written,
    /// That, and who touches pages that are not there.
    AbsentAndWritten,
}

/// `UFFDIO_REGISTER`. Registering a range again adds to what is to be known of it, and is harmless else.
pub(crate) fn uffd_register(uffd: BorrowedFd<'_>, start: u64, bytes: u64, mode: WatchMode) -> io::Result<()> {
    const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
    const MODE_MISSING: u64 = 1;
    const MODE_WP: u64 = 2;
    let mode = match mode {
        WatchMode::Written => MODE_WP,
        WatchMode::AbsentAndWritten => MODE_MISSING | MODE_WP,
    };
    let mut argument = UffdioRegister { start, bytes, mode, ioctls: 0 };
    // SAFETY: the argument has the layout of struct uffdio_register; it is another process's memory that the
    // ioctl acts on.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_REGISTER, &raw mut argument) }.into()).map(drop)
}

#[repr(C)]
struct UffdioRange {
    start: u64,
    bytes: u64,
}

/// `UFFDIO_UNREGISTER`: lifts all protection, and wakes who waits.
pub(crate) fn uffd_unregister(uffd: BorrowedFd<'_>, start: u64, bytes: u64) -> io::Result<()> {
    const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_AA01;
    let mut argument = UffdioRange { start, bytes };
    // SAFETY: the argument has the layout of struct uffdio_range; it is another process's memory that the ioctl acts on.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_UNREGISTER, &raw mut argument) }.into()).map(drop)
}

/// `UFFDIO_WAKE`.
pub(crate) fn uffd_wake(uffd: BorrowedFd<'_>, start: u64, bytes: u64) -> io::Result<()> {
    const UFFDIO_WAKE: libc::c_ulong = 0x8010_AA02;
    let mut argument = UffdioRange { start, bytes };
    // SAFETY: the argument has the layout of struct uffdio_range; the ioctl touches no memory.
    check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_WAKE, &raw mut argument) }.into()).map(drop)
}

#[repr(C)]
struct UffdioCopy {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    copied: i64,
}

/// `UFFDIO_COPY` of whole pages, protected against writing. How many bytes were copied, which are less than asked for if
/// a later page is there already; `EEXIST` if the first one is.
pub(crate) fn uffd_copy(uffd: BorrowedFd<'_>, to: u64, content: &[u8]) -> io::Result<usize> {
    const UFFDIO_COPY: libc::c_ulong = 0xC028_AA03;
    const MODE_WP: u64 = 2;
    let (from, bytes) = (content.as_ptr() as u64, content.len() as u64);
    let mut argument = UffdioCopy { to, from, bytes, mode: MODE_WP, copied: 0 };
    // SAFETY: the argument has the layout of struct uffdio_copy; the kernel reads `bytes` bytes at `from`, which is the
    // borrowed slice, and writes to another process's memory.
    let result = check(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_COPY, &raw mut argument) }.into());
    match (usize::try_from(argument.copied), result) {
        (Ok(copied), _) if copied > 0 => Ok(copied),
        (_, Ok(_)) => Ok(0),
        (_, Err(error)) => Err(error),
    }
}

/// A userfaultfd of this process that would handle all faults, the kernel's included.
pub(crate) fn userfaultfd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags only.
    let fd = check(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A run of addresses whose pages share the returned categories: struct page_region.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct PageRegion {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) categories: u64,
}

/// Which pages a scan selects, and what it says of them: the masks of struct pm_scan_arg.
pub(crate) struct ScanQuery {
    pub(crate) flags: u64,
    pub(crate) inverted: u64,
    pub(crate) all_of: u64,
    pub(crate) any_of: u64,
    pub(crate) returned: u64,
}

#[repr(C)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGEMAP_SCAN` over `addresses`: how many of `regions` were filled, and the address the walk came to, which
/// is short of the end when `regions` is full.
pub(crate) fn pagemap_scan(
    pagemap: BorrowedFd<'_>,
    addresses: std::ops::Range<u64>,
    query: &ScanQuery,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
    let mut argument = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags: query.flags,
        start: addresses.start,
        end: addresses.end,
        walk_end: 0,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        max_pages: 0,
        category_inverted: query.inverted,
        category_mask: query.all_of,
        category_anyof_mask: query.any_of,
        return_mask: query.returned,
    };
    // SAFETY: the argument has the layout of struct pm_scan_arg; its vec points to vec_len regions that are
    // borrowed mutably until the call is over.
    let filled = check(unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) }.into())?;
    Ok((usize::try_from(filled).unwrap_or(0), argument.walk_end))
}

/// A piece of another process's memory.
pub(crate) type Piece = libc::iovec;

/// Most pieces the kernel takes at once (`UIO_MAXIOV`).
pub(crate) const MAX_PIECES: usize = 1024;

pub(crate) fn piece(address: u64, bytes: usize) -> Piece {
    // Never dereferenced here: the address means something in the other process only.
    Piece { iov_base: address as *mut c_void, iov_len: bytes }
}

/// Copies `remote`, at most [`MAX_PIECES`], one after the other into `local`. How many bytes were copied: less
/// than asked for if a later piece is not readable.
pub(crate) fn read_process(pid: u32, local: &mut [u8], remote: &[Piece]) -> io::Result<usize> {
    let local = Piece { iov_base: local.as_mut_ptr().cast(), iov_len: local.len() };
    let pid = pid.cast_signed();
    // SAFETY: the kernel writes to the one local piece only, a mutably borrowed slice, and to no more than its
    // length; the remote addresses are checked by the kernel.
    let copied =
        check(
            unsafe { libc::process_vm_readv(pid, &local, 1, remote.as_ptr(), remote.len() as u64, 0) } as i64
        )?;
    Ok(usize::try_from(copied).unwrap_or(0))
}

/// Copies `local` to `address` of the other process. How many bytes were copied.
pub(crate) fn write_process(pid: u32, address: u64, local: &[u8]) -> io::Result<usize> {
    let remote = piece(address, local.len());
    let local = Piece { iov_base: local.as_ptr().cast_mut().cast(), iov_len: local.len() };
    // SAFETY: the kernel only reads the one local piece, a borrowed slice; the remote address is checked by
    // the kernel.
    let copied =
        check(unsafe { libc::process_vm_writev(pid.cast_signed(), &local, 1, &remote, 1, 0) } as i64)?;
    Ok(usize::try_from(copied).unwrap_or(0))
}
