//! How the CPUs of a machine run, found out by booting a kernel: `/dev/kvm` may exist and be useless.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::excerpt;
use crate::{CPU_MODEL, Error, Qemu, Version, layout};

/// How a machine's CPUs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// On the host's CPUs.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        })
    }
}

/// What a probe found, to be kept: it holds until QEMU or the host's kernel changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccelProbe {
    /// What machines should run with.
    pub accel: Accel,
    /// Why, for a person.
    pub reason: String,
    /// The QEMU that was tried.
    pub qemu_version: Version,
    /// The kernel that was booted.
    pub kernel: PathBuf,
}

/// What the probe's guest has on its kernel command line.
pub const PROBE_APPEND: &str = "console=ttyS0 earlyprintk=ttyS0 panic=-1 watari.run=probe";
/// What the initial ramdisk's `init` must print on the serial console when [`PROBE_APPEND`] asks for it.
pub const PROBE_MARKER: &str = "watari: init runs";

const KVM_DEVICE: &str = "/dev/kvm";
/// A kernel that boots prints all the time; one that says nothing for so long hangs, also on a busy host.
const SILENCE: Duration = Duration::from_secs(8);
/// The whole boot, also on a slow host.
const LIMIT: Duration = Duration::from_secs(30);

/// Finds out whether KVM works, by booting `kernel` with `initrd` (whose init knows [`PROBE_APPEND`]) under it.
/// Takes a second where it does, some seconds where it hangs; QEMU's messages go to a file in `scratch`.
pub fn probe_accel(qemu: &Qemu, kernel: &Path, initrd: &Path, scratch: &Path) -> AccelProbe {
    let (accel, reason) = match boot_under_kvm(qemu, kernel, initrd, scratch) {
        Ok(took) => (Accel::Kvm, format!("a kernel booted under KVM in {} ms", took.as_millis())),
        Err(reason) => (Accel::Tcg, reason),
    };
    AccelProbe { accel, reason, qemu_version: qemu.version, kernel: kernel.to_owned() }
}

fn boot_under_kvm(qemu: &Qemu, kernel: &Path, initrd: &Path, scratch: &Path) -> Result<Duration, String> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(KVM_DEVICE)
        .map_err(|error| format!("{KVM_DEVICE}: {error}"))?;
    let log = scratch.join("kvm-probe.log");
    let child = spawn(qemu, kernel, initrd, &log).map_err(|error| error.to_string())?;
    let mut guest = Guest { child };
    let begun = Instant::now();
    match await_marker(&guest.console().map_err(|error| error.to_string())?) {
        Ok(()) => Ok(begun.elapsed()),
        Err(told) => {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let said = log.lines().rev().find(|line| !line.trim().is_empty());
            Err(said.map_or(told.clone(), |line| format!("{told}; QEMU said: {}", excerpt(line))))
        }
    }
}

fn spawn(qemu: &Qemu, kernel: &Path, initrd: &Path, log: &Path) -> Result<Child, Error> {
    let prepare = |source| Error::Prepare { what: format!("{log:?}"), source };
    let log = std::fs::File::create(log).map_err(prepare)?;
    Command::new(&qemu.binary)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .args(["-machine", "q35", "-accel", "kvm", "-cpu", layout::cpu(CPU_MODEL)?, "-m", "256"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", PROBE_APPEND])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|source| Error::Run { binary: qemu.binary.clone(), source })
}

/// Reads the console until init has spoken. The error says how far the kernel got.
fn await_marker(console: &Receiver<Vec<u8>>) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    let mut printed = String::new();
    loop {
        let patience = SILENCE.min(deadline.saturating_duration_since(Instant::now()));
        match console.recv_timeout(patience) {
            Ok(bytes) => printed.push_str(&String::from_utf8_lossy(&bytes)),
            Err(end) => return Err(stuck(&printed, end)),
        }
        if printed.contains(PROBE_MARKER) {
            return Ok(());
        }
    }
}

fn stuck(printed: &str, end: RecvTimeoutError) -> String {
    let how = match end {
        RecvTimeoutError::Timeout => "hung",
        RecvTimeoutError::Disconnected => "ended",
    };
    match printed.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("a kernel booted under KVM {how} after printing {:?}", excerpt(line.trim())),
        None => format!("a kernel booted under KVM {how} before it printed anything"),
    }
}

/// The probe's guest, ended when dropped.
struct Guest {
    child: Child,
}

impl Guest {
    /// What the guest prints. The thread that reads it ends with the process.
    fn console(&mut self) -> std::io::Result<Receiver<Vec<u8>>> {
        let (sender, receiver) = mpsc::channel();
        let mut pipe = self.child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        thread::Builder::new().name(String::from("kvm-probe")).spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        })?;
        Ok(receiver)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
