//! From a machine's configuration to QEMU's command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use watari_types::{Boot, MachineConfig};

use crate::layout::{
    self, AGENT_CHARDEV, DESKTOP_CHARDEV, SERIAL_CHARDEV, disk_id, disk_thread, nic_backend,
};
use crate::{Accel, Display, Error, RAM_BLOCK_MAIN, inherit};

/// Where a running QEMU has the file of its main memory open, as that process sees it.
pub const MEMORY_PATH: &str = "/proc/self/fd/60";
/// Where a running QEMU has [`Launch::state`] open, as that process sees it: what
/// [`Monitor::save_devices`](crate::Monitor::save_devices) writes to.
pub const STATE_PATH: &str = "/proc/self/fd/61";
const MEMORY_FD: RawFd = 60;
const STATE_FD: RawFd = 61;
const FIRST_TAP_FD: RawFd = 62;

/// The monitor's socket, in [`Launch::run_dir`].
pub const QMP_SOCKET: &str = "qmp";
/// The screen's socket (VNC), in [`Launch::run_dir`].
pub const VNC_SOCKET: &str = "vnc";
/// The serial console's socket, in [`Launch::run_dir`].
pub const SERIAL_SOCKET: &str = "serial";
/// The guest agent's socket, in [`Launch::run_dir`].
pub const AGENT_SOCKET: &str = "agent";
/// The desktop agent's socket (what spice-vdagent speaks), in [`Launch::run_dir`], for machines whose layout has one.
pub const DESKTOP_SOCKET: &str = "spice";
/// The debugger's socket, in [`Launch::run_dir`], where there is one.
pub const GDB_SOCKET: &str = "gdb";

/// The size of the text that says who a machine is. It is padded with newlines, so that a clone, whose text
/// differs, still has the same layout.
pub const IDENTITY_BYTES: usize = 1024;
const IDENTITY_FILE: &str = "opt/org.watari/identity";

/// How long QEMU waits for a disk that went away before the guest's requests fail.
const DISK_RECONNECT_SECONDS: u32 = 600;
/// What a Unix socket's address can hold, without the terminating zero.
const SOCKET_PATH_BYTES: usize = 107;

/// The file that a guest's main memory is mapped from: `memory_bytes` long, on tmpfs or a memfd.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBacking<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Whether the guest's writes stay in its own process (`MAP_PRIVATE`), as for clones that share a head.
    ///
    /// QEMU then opens the file read-only, so that it cannot punch holes into what others share. A guest that
    /// reports free pages is answered, its pages stay as they are, and QEMU notes each refusal in its log.
    pub private: bool,
}

/// The files of a machine that boots a kernel directly.
#[derive(Clone, Copy, Debug)]
pub struct BootFiles<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// The initial ramdisk.
    pub initrd: Option<&'a Path>,
}

/// Everything a QEMU process is started with.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The machine.
    pub config: &'a MachineConfig,
    /// Its name, for process lists.
    pub name: &'a str,
    /// How its CPUs run.
    pub accel: Accel,
    /// Its main memory.
    pub memory: MemoryBacking<'a>,
    /// A memfd that device state is written to and read from, see [`STATE_PATH`].
    pub state: BorrowedFd<'a>,
    /// For each of its disks the NBD server's Unix socket; the `i`th disk is the export called `i`. A guest that is
    /// never to run may have exports that are read-only.
    pub disks: &'a [PathBuf],
    /// What it boots, if it boots a kernel.
    pub boot: Option<BootFiles<'a>>,
    /// An existing folder for its sockets: [`QMP_SOCKET`], [`VNC_SOCKET`], [`SERIAL_SOCKET`], [`AGENT_SOCKET`].
    pub run_dir: &'a Path,
    /// Where QEMU's own messages are appended to.
    pub log: &'a Path,
    /// Where what the guest prints on its serial console is appended to.
    pub serial_log: &'a Path,
    /// What the guest can read about itself, at most [`IDENTITY_BYTES`] without zero bytes.
    pub identity: &'a str,
    /// The generation id, new for every clone and rollback.
    pub vmgenid: [u8; 16],
    /// Whether it waits for RAM and devices from outside instead of being reset.
    pub incoming: bool,
    /// A tap for each of its network cards (see [`plug_into`](crate::plug_into)), or none: then they are in a network of QEMU's
    /// own.
    pub taps: &'a [OwnedFd],
    /// How it can be asked what it shows. A VNC server there always is.
    pub display: Display,
    /// Whether a debugger may attach at [`GDB_SOCKET`], with gdb's remote protocol. It stops and continues the guest as
    /// it likes.
    pub gdb: bool,
}

impl Launch<'_> {
    /// The command that starts this machine, paused. It leads its own session and inherits no descriptor but
    /// those it needs; nothing passes through a shell.
    ///
    /// # Errors
    /// [`Error::Config`] for a machine that cannot be built, [`Error::Prepare`] if the log or a descriptor
    /// cannot be had.
    pub fn command(&self, binary: &Path) -> Result<Command, Error> {
        let arguments = self.arguments()?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log)
            .map_err(|source| Error::Prepare { what: format!("the log {:?}", self.log), source })?;
        let log_too =
            log.try_clone().map_err(|source| Error::Prepare { what: String::from("the log"), source })?;
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(log_too);
        let mut fds = vec![
            (inheritable(self.memory.file, "its memory")?, MEMORY_FD),
            (inheritable(self.state, "its device state")?, STATE_FD),
        ];
        for (index, tap) in self.taps.iter().enumerate() {
            fds.push((inheritable(tap.as_fd(), "its network card")?, tap_fd(index)));
        }
        inherit::new_session_with(&mut command, fds);
        Ok(command)
    }

    fn arguments(&self) -> Result<Vec<OsString>, Error> {
        layout::check(self.config)?;
        let mut args = Arguments::default();
        self.process(&mut args);
        self.machine(&mut args)?;
        self.boot(&mut args)?;
        self.backends(&mut args)?;
        for device in layout::devices(self.config, &uuid(&self.vmgenid)) {
            args.json("-device", &device);
        }
        if self.incoming {
            args.pair("-incoming", "defer");
        }
        if self.gdb {
            args.pair("-gdb", format!("unix:{},server=on,wait=off", self.socket(GDB_SOCKET)?));
        }
        Ok(args.0)
    }

    /// What concerns the process and not the machine.
    fn process(&self, args: &mut Arguments) {
        args.one("-S");
        args.one("-nodefaults");
        args.one("-no-user-config");
        args.pair("-name", format!("guest={},debug-threads=on", escape(self.name)));
        args.pair("-msg", "timestamp=on");
        args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        // Without the configuration section, a stream of nothing but device state can be loaded.
        args.pair("-global", "migration.send-configuration=off");
    }

    fn machine(&self, args: &mut Arguments) -> Result<(), Error> {
        let MachineConfig { memory_bytes, cpus, machine_type, .. } = self.config;
        args.pair(
            "-machine",
            format!(
                "{},memory-backend={RAM_BLOCK_MAIN},suppress-vmdesc=on,usb=off,vmport=off,sata=off",
                escape(machine_type)
            ),
        );
        args.pair("-accel", self.accel.to_string());
        args.pair("-cpu", layout::cpu(&self.config.cpu_model)?);
        args.pair("-smp", format!("cpus={cpus},sockets=1,cores={cpus},threads=1"));
        args.pair("-m", format!("size={}M", memory_bytes >> 20));
        args.pair("-uuid", self.config.id.to_uuid());
        args.pair("-rtc", "base=utc,clock=host");
        let mut memory = json!({"qom-type": "memory-backend-file", "id": RAM_BLOCK_MAIN, "size": memory_bytes,
            "mem-path": MEMORY_PATH, "share": !self.memory.private});
        if self.memory.private {
            memory["readonly"] = json!(true);
            memory["rom"] = json!("off");
        }
        args.json("-object", &memory);
        Ok(())
    }

    fn boot(&self, args: &mut Arguments) -> Result<(), Error> {
        args.pair("-boot", "menu=off,strict=on");
        match (&self.config.boot, self.boot) {
            (Boot::Disk, None) => {}
            (Boot::Kernel { append, .. }, Some(files)) => {
                args.pair("-kernel", files.kernel);
                if let Some(initrd) = files.initrd {
                    args.pair("-initrd", initrd);
                }
                args.pair("-append", append);
            }
            _ => return Err(Error::Config(String::from("boot files and what it boots from do not agree"))),
        }
        if self.identity.len() > IDENTITY_BYTES || self.identity.contains('\0') {
            return Err(Error::Config(format!("its identity has {} bytes", self.identity.len())));
        }
        let padding = "\n".repeat(IDENTITY_BYTES - self.identity.len());
        let identity = format!("{}{padding}", self.identity);
        args.pair("-fw_cfg", format!("name={IDENTITY_FILE},string={}", escape(&identity)));
        Ok(())
    }

    /// The host's ends of the devices.
    fn backends(&self, args: &mut Arguments) -> Result<(), Error> {
        if self.disks.len() != self.config.disks.len() {
            let (have, need) = (self.disks.len(), self.config.disks.len());
            return Err(Error::Config(format!("{have} disk servers for {need} disks")));
        }
        args.json(
            "-object",
            &json!({"qom-type": "rng-random", "id": "rng0-source", "filename": "/dev/urandom"}),
        );
        args.pair(
            "-display",
            match self.display {
                Display::Dbus => "dbus,p2p=yes",
                Display::Vnc => "none",
            },
        );
        args.pair("-vnc", format!("unix:{}", self.socket(VNC_SOCKET)?));
        let socket = |name| Ok(format!("path={},server=on,wait=off", self.socket(name)?));
        args.pair("-chardev", format!("socket,id=qmp0,{}", socket(QMP_SOCKET)?));
        args.pair("-mon", "chardev=qmp0,mode=control");
        args.pair(
            "-chardev",
            format!(
                "socket,id={SERIAL_CHARDEV},{},logfile={},logappend=on",
                socket(SERIAL_SOCKET)?,
                escape(text(self.serial_log)?)
            ),
        );
        args.pair("-chardev", format!("socket,id={AGENT_CHARDEV},{}", socket(AGENT_SOCKET)?));
        if layout::has_desktop_port(self.config.device_layout) {
            args.pair("-chardev", format!("socket,id={DESKTOP_CHARDEV},{}", socket(DESKTOP_SOCKET)?));
        }
        for (index, path) in self.disks.iter().enumerate() {
            args.json("-object", &json!({"qom-type": "iothread", "id": disk_thread(index)}));
            args.json(
                "-blockdev",
                &json!({"driver": "nbd", "node-name": disk_id(index), "export": index.to_string(),
                    "server": {"type": "unix", "path": text(path)?}, "discard": "unmap", "auto-read-only": true,
                    "reconnect-delay": DISK_RECONNECT_SECONDS}),
            );
        }
        if !self.taps.is_empty() && self.taps.len() != self.config.nics.len() {
            let (have, need) = (self.taps.len(), self.config.nics.len());
            return Err(Error::Config(format!("{have} taps for {need} network cards")));
        }
        for index in 0..self.config.nics.len() {
            let id = nic_backend(index);
            let netdev = match self.taps.is_empty() {
                true => json!({"type": "user", "id": id}),
                false => json!({"type": "tap", "id": id, "fd": tap_fd(index).to_string()}),
            };
            args.json("-netdev", &netdev);
        }
        Ok(())
    }

    fn socket(&self, name: &str) -> Result<String, Error> {
        let path = self.run_dir.join(name);
        let path = text(&path)?;
        if path.len() > SOCKET_PATH_BYTES {
            return Err(Error::Config(format!("{path:?} is too long for a socket")));
        }
        Ok(escape(path))
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn one(&mut self, argument: impl Into<OsString>) {
        self.0.push(argument.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.one(option);
        self.one(value);
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.pair(option, value.to_string());
    }
}

/// QEMU separates options by commas and takes a doubled one as a plain one.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Config(format!("the path {path:?} is not UTF-8")))
}

fn uuid(bytes: &[u8; 16]) -> String {
    watari_types::MachineId(*bytes).to_uuid()
}

fn tap_fd(index: usize) -> RawFd {
    FIRST_TAP_FD + index as RawFd
}

/// A duplicate numbered above every descriptor that the new process expects.
fn inheritable(fd: BorrowedFd<'_>, what: &str) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), tap_fd(layout::MAX_NICS))
        .map_err(|error| Error::Prepare { what: what.to_owned(), source: error.into() })
}
