//! What a monitor can do with its machine: stop it, save it, load it, change it.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Extra;
use crate::channel::remaining;
use crate::error::excerpt;
use crate::layout::{nic_device, nic_id};
use crate::{Error, Event, Monitor, RamBlock, Version, ram_blocks};

/// For commands that QEMU answers at once unless it hangs.
pub(crate) const QUICK: Duration = Duration::from_secs(10);
/// The version that learned to stay alive when a migration stream is bad.
const EXIT_ON_ERROR: Version = Version { major: 9, minor: 1, micro: 0 };

/// The version that leaves the disks of an incoming machine inactive until `cont`.
const LATE_ACTIVATION: Version = Version { major: 10, minor: 0, micro: 0 };

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Its CPUs run.
    Running,
    /// It was stopped, or never started.
    Paused,
    /// It waits for its RAM and devices.
    Incoming,
    /// A disk failed and the machine was stopped so that the guest does not see it.
    IoError,
    /// The guest has powered off.
    Shutdown,
    /// Anything else, in QEMU's words.
    Other(String),
}

impl RunState {
    fn from_qemu(text: &str) -> Self {
        match text {
            "running" => RunState::Running,
            "paused" | "prelaunch" | "save-vm" | "restore-vm" | "postmigrate" => RunState::Paused,
            "inmigrate" => RunState::Incoming,
            "io-error" => RunState::IoError,
            "shutdown" => RunState::Shutdown,
            other => RunState::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Incoming => "incoming",
            RunState::IoError => "io-error",
            RunState::Shutdown => "shutdown",
            RunState::Other(text) => text,
        })
    }
}

impl Monitor {
    /// Stops the CPUs. On return no device has a request under way, and everything the guest wrote to its disks
    /// was answered and flushed by the disks' server.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn stop(&self) -> Result<(), Error> {
        self.execute("stop", json!({}), QUICK).map(drop)
    }

    /// Lets the CPUs run, and returns when they do: QEMU may answer much later, if the first thing that it touches is a page of
    /// memory that somebody has to bring.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn cont(&self) -> Result<(), Error> {
        let extra = Extra { enough: Some("RESUME"), ..Extra::default() };
        self.execute_with("cont", json!({}), QUICK, extra).map(drop)
    }

    /// What the machine is doing.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn status(&self) -> Result<RunState, Error> {
        let answer = self.execute("query-status", json!({}), QUICK)?;
        let status = answer.get("status").and_then(Value::as_str);
        status.map(RunState::from_qemu).ok_or_else(|| bad_answer("query-status", &answer))
    }

    /// All RAM blocks, with where they are in the process.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`], and [`Error::BadAnswer`] if the table is not understood.
    pub fn ram_blocks(&self) -> Result<Vec<RamBlock>, Error> {
        let command = "human-monitor-command";
        let answer = self.execute(command, json!({"command-line": "info ramblock"}), QUICK)?;
        let blocks = answer.as_str().and_then(ram_blocks::parse);
        blocks.filter(|blocks| !blocks.is_empty()).ok_or_else(|| bad_answer("info ramblock", &answer))
    }

    /// Writes the state of everything but RAM to `path`, which is truncated first; the machine should be
    /// stopped. The path is opened by the QEMU process: [`STATE_PATH`](crate::STATE_PATH) is the file that it was
    /// launched with. Some 170 KB in 1–2 ms.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`]. The machine is in the state it was in.
    pub fn save_devices(&self, path: &Path) -> Result<(), Error> {
        let arguments = json!({"filename": path.to_string_lossy(), "live": false});
        self.execute("xen-save-devices-state", arguments, QUICK).map(drop)
    }

    /// Loads what [`Monitor::save_devices`] wrote into a machine that was launched
    /// [incoming](crate::Launch::incoming) with the same configuration and whose RAM blocks have been filled.
    /// Afterwards the machine is paused.
    ///
    /// # Errors
    /// [`Error::Incoming`] with QEMU's reason, or [`Error::Closed`] where QEMU is older than 9.1 and exits with
    /// the reason in its log: end the process and start again.
    pub fn load_devices(&self, path: &Path, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let failed = |detail| Error::Incoming { path: path.to_owned(), detail };
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.execute("migrate-set-capabilities", events, remaining(deadline))?;
        let mut arguments = json!({"uri": format!("file:{}", path.to_string_lossy())});
        if self.version() >= EXIT_ON_ERROR {
            arguments["exit-on-error"] = json!(false);
        }
        let progress = self.events();
        match self.execute("migrate-incoming", arguments, remaining(deadline)) {
            Err(Error::Refused { detail, .. }) => return Err(failed(detail)),
            other => other?,
        };
        self.await_event(&progress, "the devices' state", deadline, |event| {
            if event.name != "MIGRATION" {
                return None;
            }
            match event.data.get("status").and_then(Value::as_str) {
                Some("completed") => Some(Ok(())),
                Some("failed") => Some(Err(failed(self.migration_error()))),
                _ => None,
            }
        })?
    }

    /// Lets the disks of a machine whose devices were loaded be written to. [`Monitor::cont`] does that by itself; a
    /// debugger that sets the guest going does not, and the first write would end the process.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn activate_disks(&self) -> Result<(), Error> {
        if self.version() < LATE_ACTIVATION {
            return Ok(());
        }
        self.execute("blockdev-set-active", json!({"active": true}), QUICK).map(drop)
    }

    /// Has the machine's network cards tell everyone where they are now, several times within a second or so.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn announce(&self) -> Result<(), Error> {
        let arguments = json!({"initial": 50, "max": 550, "rounds": 5, "step": 100});
        self.execute("announce-self", arguments, QUICK).map(drop)
    }

    fn migration_error(&self) -> String {
        let status = self.execute("query-migrate", json!({}), QUICK);
        let text = |value: Value| value.get("error-desc").and_then(Value::as_str).map(excerpt);
        status.ok().and_then(text).unwrap_or_else(|| String::from("QEMU's log says why"))
    }

    /// Plugs or unplugs the cable of the `nic`th network card. The guest sees it when it runs.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`], also if there is no such card.
    pub fn set_link(&self, nic: usize, up: bool) -> Result<(), Error> {
        self.execute("set_link", json!({"name": nic_id(nic), "up": up}), QUICK).map(drop)
    }

    /// Takes the `nic`th network card out of the running machine and plugs in one with another address. The
    /// guest must be running and takes part; one that has no driver for hot-plugging does not.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`]. After [`Error::TimedOut`] the guest may still let go of the old card, and
    /// then has none.
    pub fn replace_nic(&self, nic: usize, mac: &str, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let id = nic_id(nic);
        let events = self.events();
        self.execute("device_del", json!({"id": id}), remaining(deadline))?;
        self.await_event(&events, "device_del", deadline, |event| {
            (event.name == "DEVICE_DELETED" && event.data.get("device") == Some(&json!(id))).then_some(())
        })?;
        self.execute("device_add", nic_device(nic, mac), remaining(deadline)).map(drop)
    }

    /// Presses the power button. The guest decides what follows; a `SHUTDOWN` event tells that it did.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn powerdown(&self) -> Result<(), Error> {
        self.execute("system_powerdown", json!({}), QUICK).map(drop)
    }

    /// Ends the process without asking the guest, once QEMU has let go of the disks.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn quit(&self) -> Result<(), Error> {
        self.execute("quit", json!({}), QUICK).map(drop)
    }

    /// Writes what is on the screen to a PNG file, by the QEMU process.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn screendump(&self, path: &Path) -> Result<(), Error> {
        let arguments = json!({"filename": path.to_string_lossy(), "format": "png"});
        self.execute("screendump", arguments, QUICK).map(drop)
    }

    /// Shows the screen to whoever has the other end of `socket`, over D-Bus, to many at once if need be; for a QEMU that was
    /// started with `-display dbus,p2p=yes`.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`].
    pub fn serve_display(&self, socket: BorrowedFd) -> Result<(), Error> {
        let name = "display";
        let extra = Extra { descriptor: Some(socket), ..Extra::default() };
        self.execute_with("getfd", json!({"fdname": name}), QUICK, extra)?;
        self.execute("add_client", json!({"protocol": "@dbus-display", "fdname": name}), QUICK).map(drop)
    }

    /// Writes guest-physical memory and the registers of every CPU as an ELF core, by the QEMU process, to what `path`
    /// is: front to back, so that it may be a pipe. The machine should be stopped.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`]; what was written so far is no core.
    pub fn dump_memory(&self, path: &Path, limit: Duration) -> Result<(), Error> {
        let arguments = json!({"paging": false, "protocol": format!("file:{}", path.to_string_lossy())});
        self.execute("dump-guest-memory", arguments, limit).map(drop)
    }

    /// Waits for the first event that `wanted` recognises.
    fn await_event<T>(
        &self,
        events: &std::sync::mpsc::Receiver<Event>,
        command: &str,
        deadline: Instant,
        wanted: impl Fn(&Event) -> Option<T>,
    ) -> Result<T, Error> {
        let limit = remaining(deadline);
        loop {
            match events.recv_timeout(remaining(deadline)) {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return Ok(found);
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::TimedOut { peer: "QEMU", command: command.to_owned(), limit });
                }
                // The connection's end is told best by asking once more.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    self.status()?;
                    return Err(Error::TimedOut { peer: "QEMU", command: command.to_owned(), limit });
                }
            }
        }
    }
}

pub(crate) fn bad_answer(command: &str, answer: &Value) -> Error {
    Error::BadAnswer { peer: "QEMU", command: command.to_owned(), answer: excerpt(&answer.to_string()) }
}
