//! Tests the host for what Watari needs, for real where a look would not do, and says how to mend it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::statfs;
use serde::{Deserialize, Serialize};
use watari_keeper::home::Home;
use watari_keeper::protocol::Progress;
use watari_qemu::{Accel, Display, Qemu};

use crate::accel::{Choice, ensure_accelerator};
use crate::host::{available_memory, disk_space};
use crate::{Error, Options};

/// How much a failed check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Watari works, but slower or with less.
    Degraded,
    /// Watari does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub status: Health,
    /// What was found.
    pub detail: String,
    /// How to mend it; empty where nothing is to be mended.
    pub fix: String,
}

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The longest part of a socket's address below the home: a machine's name and its longest socket.
const LONGEST_BELOW_HOME: usize = "/run/".len() + 48 + "/keeper".len();
/// The same for a machine with a short name.
const SHORT_BELOW_HOME: usize = "/run/".len() + 8 + "/keeper".len();
/// What fits into `sockaddr_un` (unix(7)), without the final NUL.
const SOCKET_ADDRESS: usize = 107;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Looks at everything, slow things last. `progress` hears of what takes a while.
///
/// # Errors
/// Only that the home cannot be opened: everything else is a finding.
pub fn examine(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Vec<Check>, Error> {
    let home = Home::open(&options.home, &options.tmpfs)?;
    let qemu = Qemu::find_in(&options.search_path);
    let mut checks = vec![
        qemu_found(&qemu),
        qemu_img(&options.search_path),
        balloon(&qemu),
        display(&qemu),
        tracker(),
        userfaultfd(),
        shared_memory(&options.tmpfs),
        memory(),
        space(home.root()),
        socket_path(home.root()),
        datagrams(),
        bridges(),
    ];
    checks.extend(demo());
    checks.push(accelerator(&home, &qemu, progress));
    Ok(checks)
}

fn check(name: &str, status: Health, detail: impl ToString, fix: impl ToString) -> Check {
    let fix = if status == Health::Ok { String::new() } else { fix.to_string() };
    Check { name: name.to_owned(), status, detail: detail.to_string(), fix }
}

fn failed(name: &str, status: Health, error: impl Into<Error>) -> Check {
    let report = error.into().report();
    check(name, status, report.message, report.hint)
}

fn qemu_found(qemu: &Result<Qemu, watari_qemu::Error>) -> Check {
    match qemu {
        Ok(qemu) => {
            let found = format!("QEMU {} ({})", qemu.version, qemu.binary.display());
            match qemu.default_machine_type() {
                Ok(machine) => check("qemu", Health::Ok, format!("{found}, new machines are {machine}"), ""),
                Err(error) => failed("qemu", Health::Broken, error),
            }
        }
        Err(error) => {
            let report = error.report();
            check("qemu", Health::Broken, report.message, report.hint)
        }
    }
}

/// How it is known what machines show.
fn display(qemu: &Result<Qemu, watari_qemu::Error>) -> Check {
    match qemu.as_ref().map(|qemu| qemu.display) {
        Ok(Display::Dbus) => check("display", Health::Ok, "QEMU tells over D-Bus what machines show", ""),
        Ok(Display::Vnc) | Err(_) => check(
            "display",
            Health::Degraded,
            "this QEMU has no D-Bus display: what machines show is seen later, over VNC",
            "install the package qemu-system-modules-opengl, and start machines again",
        ),
    }
}

fn qemu_img(search_path: &OsStr) -> Check {
    let found =
        std::env::split_paths(search_path).map(|folder| folder.join("qemu-img")).find(|p| p.is_file());
    match found {
        Some(path) => check("qemu-img", Health::Ok, path.display(), ""),
        None => check(
            "qemu-img",
            Health::Degraded,
            "qemu-img is not installed: no machine can be created from an image",
            "install the package qemu-utils",
        ),
    }
}

fn balloon(qemu: &Result<Qemu, watari_qemu::Error>) -> Check {
    let Ok(qemu) = qemu else {
        return check("balloon", Health::Broken, "needs QEMU", "see qemu");
    };
    let help = Command::new(&qemu.binary)
        .args(["-device", "virtio-balloon-pci,help"])
        .stdin(Stdio::null())
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    if help.contains("free-page-reporting") {
        check("balloon", Health::Ok, "pages that guests free are not kept", "")
    } else {
        check(
            "balloon",
            Health::Broken,
            "this QEMU has no virtio balloon with free page reporting",
            "install the package qemu-system-x86",
        )
    }
}

fn tracker() -> Check {
    match watari_ram::self_test() {
        Ok(()) => {
            check("tracker", Health::Ok, "write-protect: the kernel tells which pages were written", "")
        }
        Err(error) => check(
            "tracker",
            Health::Degraded,
            format!(
                "compare: every checkpoint reads all memory, because {}",
                watari_types::ErrorReport::chain(&error)
            ),
            "use Linux 6.7 or later, and allow userfaultfd and ptrace of child processes",
        ),
    }
}

/// Without kernel faults a descriptor still tracks writes; resuming lazily needs them.
fn userfaultfd() -> Check {
    if watari_ram::can_watch() {
        return check(
            "userfaultfd",
            Health::Ok,
            "a restored guest runs before all of its memory is read",
            "",
        );
    }
    check(
        "userfaultfd",
        Health::Degraded,
        "a restored guest waits until all of its memory is read: only faults of user space can be handled, which is \
         enough to track writes",
        "run the node as root, or set the sysctl vm.unprivileged_userfaultfd to 1",
    )
}

fn shared_memory(tmpfs: &Path) -> Check {
    let name = "shared-memory";
    let (free, kind) = match (disk_space(tmpfs), statfs(tmpfs)) {
        (Ok((free, _)), Ok(stat)) => (free, stat.f_type as u64),
        (Err(error), _) => return failed(name, Health::Broken, error),
        (_, Err(error)) => return failed(name, Health::Broken, Error::io("inspect", tmpfs)(error.into())),
    };
    let found = format!("{} MiB free in {}", free / MIB, tmpfs.display());
    if kind != TMPFS_MAGIC {
        let what = format!("{} is no tmpfs: clones cannot share memory", tmpfs.display());
        check(name, Health::Broken, what, "mount a tmpfs there")
    } else if free < 256 * MIB {
        check(name, Health::Degraded, found, "clones share memory there: enlarge it, mount -o remount,size=…")
    } else {
        check(name, Health::Ok, found, "")
    }
}

fn memory() -> Check {
    match available_memory() {
        Ok(bytes) if bytes >= 512 * MIB => {
            check("memory", Health::Ok, format!("{} MiB available", bytes / MIB), "")
        }
        Ok(bytes) => {
            let found = format!("only {} MiB available", bytes / MIB);
            check("memory", Health::Degraded, found, "end other programs, or create small machines")
        }
        Err(error) => failed("memory", Health::Broken, error),
    }
}

fn space(home: &Path) -> Check {
    let (free, _) = match disk_space(home) {
        Ok(space) => space,
        Err(error) => return failed("disk-space", Health::Broken, error),
    };
    let found = format!("{} MiB free in {}", free / MIB, home.display());
    let fix = "make room, or use a home elsewhere with --home";
    match free {
        0..MIB => check("disk-space", Health::Broken, found, fix),
        MIB..GIB => check("disk-space", Health::Degraded, found, fix),
        _ => writable(home).unwrap_or_else(|| check("disk-space", Health::Ok, found, "")),
    }
}

fn writable(home: &Path) -> Option<Check> {
    let probe = home.join("node/doctor.probe");
    let tried = File::create(&probe).and_then(|_| fs::remove_file(&probe));
    tried.err().map(|error| failed("disk-space", Health::Broken, Error::io("write", &probe)(error)))
}

fn socket_path(home: &Path) -> Check {
    let room = SOCKET_ADDRESS.saturating_sub(home.as_os_str().as_bytes().len());
    let found = format!("{} bytes of path below {} can be a socket's address", room, home.display());
    let fix = "use a home with a shorter path with --home";
    if room < SHORT_BELOW_HOME {
        check("home-path", Health::Broken, found, fix)
    } else if room < LONGEST_BELOW_HOME {
        check("home-path", Health::Degraded, format!("{found}: machines need short names"), fix)
    } else {
        check("home-path", Health::Ok, found, "")
    }
}

/// What comes from other nodes waits here until it is read.
fn datagrams() -> Check {
    const ENOUGH: u64 = 2 * MIB;
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max");
    match limit.ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(bytes) if bytes < ENOUGH => check(
            "datagrams",
            Health::Degraded,
            format!("{} KiB of them may wait: fast connections to other nodes lose some", bytes / 1024),
            "sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032, and in /etc/sysctl.d/",
        ),
        Some(bytes) => check("datagrams", Health::Ok, format!("{} KiB of them may wait", bytes / 1024), ""),
        None => check("datagrams", Health::Ok, "nobody says how many of them may wait", ""),
    }
}

/// Only machines that are to be reached on a local network need one.
fn bridges() -> Check {
    let detail = match watari_qemu::bridges_allowed() {
        Some(allowed) if !allowed.is_empty() => {
            format!("machines may be plugged into {}", allowed.join(", "))
        }
        Some(_) => "none that machines may be plugged into: /etc/qemu/bridge.conf lists them, as `allow br0`"
            .to_owned(),
        None => "QEMU's bridge helper is not installed: machines cannot be plugged into one".to_owned(),
    };
    check("bridges", Health::Ok, detail, "")
}

fn demo() -> [Check; 2] {
    let kernel = match watari_demo::find_kernel() {
        Ok(kernel) => kernel,
        Err(error) => {
            return [
                failed("demo-kernel", Health::Degraded, error),
                check("demo-ramdisk", Health::Degraded, "needs a kernel", "see demo-kernel"),
            ];
        }
    };
    let found = check("demo-kernel", Health::Ok, kernel.image.display(), "");
    let ramdisk = match watari_demo::initramfs(&kernel) {
        Ok(bytes) => {
            let size = bytes.len() as u64 / MIB;
            check("demo-ramdisk", Health::Ok, format!("busybox and modules make {size} MiB"), "")
        }
        Err(error) => failed("demo-ramdisk", Health::Degraded, error),
    };
    [found, ramdisk]
}

fn accelerator(
    home: &Home,
    qemu: &Result<Qemu, watari_qemu::Error>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Check {
    let Ok(qemu) = qemu else {
        return check("accelerator", Health::Broken, "needs QEMU", "see qemu");
    };
    match ensure_accelerator(home, qemu, progress) {
        Ok(Choice::Set(Accel::Kvm)) => {
            check("accelerator", Health::Ok, "kvm: node/settings.toml decides, nothing was tried", "")
        }
        Ok(Choice::Set(Accel::Tcg)) => check(
            "accelerator",
            Health::Degraded,
            "tcg (slower): node/settings.toml decides, nothing was tried",
            "take the line `accelerator` out of node/settings.toml to have it found out",
        ),
        Ok(Choice::Found(probe)) if probe.accel == Accel::Kvm => {
            check("accelerator", Health::Ok, format!("kvm: {}", probe.reason), "")
        }
        Ok(Choice::Found(probe)) => check(
            "accelerator",
            Health::Degraded,
            format!("tcg (slower): {}", probe.reason),
            "allow this user to open /dev/kvm, and virtualisation in the firmware or the outer hypervisor",
        ),
        Err(error) => failed("accelerator", Health::Broken, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_too_deep_for_sockets_is_found_before_a_machine_fails() {
        let home = |length: usize| format!("/{}", "h".repeat(length - 1));
        assert_eq!(socket_path(Path::new(&home(47))).status, Health::Ok);
        assert_eq!(socket_path(Path::new(&home(60))).status, Health::Degraded);
        assert_eq!(socket_path(Path::new(&home(100))).status, Health::Broken);
    }

    #[test]
    fn what_is_fine_needs_no_mending() {
        assert_eq!(check("x", Health::Ok, "fine", "mend").fix, "");
        assert_eq!(check("x", Health::Broken, "bad", "mend").fix, "mend");
    }

    #[test]
    fn a_host_without_programs_is_told_what_to_install() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().as_os_str();
        let qemu = Qemu::find_in(nothing);
        for found in [qemu_found(&qemu), qemu_img(nothing)] {
            assert!(found.status != Health::Ok && found.fix.contains("package"), "{found:?}");
        }
        assert_eq!(balloon(&qemu).status, Health::Broken);
    }
}
