//! Keepers: starting them, following them, and what to do when one is gone.
//!
//! ```text
//!                spawn (start, restore, …)                 the machine ended
//!    no keeper ───────────────────────────▶ followed ──────────────────────────▶ no keeper
//!        │  ▲                                 ▲   │  keeper died                     ▲
//!        │  └── neither lives: crashed ───┐   │   ▼                                  │
//!        │                                └── settle ── QEMU lives: keeper adopts it ┘ (if that fails)
//!        └── state.json says running (daemon was restarted) ──▲
//! ```
//!
//! A keeper is a process of its own session and outlives the daemon. While it runs it owns `state.json`; the
//! daemon writes that file only when it has settled that no keeper is there. [`Node::settle`] is called with the
//! machine's lock held: by every operation before it decides anything, by the follower of a keeper that died, and
//! for each machine when the daemon starts. It changes nothing where there is nothing to repair.

use std::fs::OpenOptions;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use watari_keeper::client;
use watari_keeper::home::MachineHome;
use watari_keeper::protocol::{Progress, Request, Start, Started, Status};
use watari_keeper::record::{MachineState, Phase, load_json};
use watari_keeper::{kill_if_same, process_started};
use watari_types::{ErrorReport, MachineName};

use crate::node::{Node, OnProgress, hold};
use crate::process::Process;
use crate::{Error, Result};

/// How long a keeper that said goodbye may take to be gone.
const GOODBYE: Duration = Duration::from_secs(30);

/// A keeper that runs.
pub(crate) struct Live {
    /// `None` if it was gone before it could be held.
    keeper: Option<Process>,
    status: Mutex<Status>,
    ended: Mutex<bool>,
    end: Condvar,
}

/// The part of `instance.json` that tells which process QEMU is.
#[derive(Deserialize)]
pub(crate) struct QemuProcess {
    pub(crate) qemu_pid: u32,
    pub(crate) qemu_started: u64,
}

impl Live {
    fn new(status: Status) -> Live {
        Live {
            keeper: Process::open(status.keeper_pid),
            status: Mutex::new(status),
            ended: Mutex::new(false),
            end: Condvar::new(),
        }
    }

    /// What the keeper last said it is doing.
    pub(crate) fn status(&self) -> Status {
        hold(&self.status).clone()
    }

    pub(crate) fn set_status(&self, status: Status) {
        *hold(&self.status) = status;
    }

    /// Waits until the keeper's process is gone and the machine can be started again.
    pub(crate) fn wait_for_end(&self) -> Result<()> {
        if self.ends_within(GOODBYE) {
            Ok(())
        } else {
            Err(Error::Internal("the machine's keeper does not end".to_owned()))
        }
    }

    /// Like [`Self::wait_for_end`], for so long. Returns whether it has ended.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let waited = self.end.wait_timeout_while(hold(&self.ended), limit, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends the keeper's process, whatever it is doing.
    pub(crate) fn kill_keeper(&self) {
        self.keeper.iter().for_each(Process::kill);
    }

    fn set_ended(&self) {
        *hold(&self.ended) = true;
        self.end.notify_all();
    }
}

impl Node {
    /// Starts a keeper and follows it from the moment its guest runs. `stdin` is for a start that takes
    /// something from there.
    ///
    /// # Errors
    /// [`Error::Closing`] once everything is to end; otherwise what the keeper said. No keeper runs then, and
    /// `state.json` tells what the machine is.
    pub(crate) fn run_keeper(
        self: &Arc<Self>,
        name: &MachineName,
        start: &Start,
        stdin: Option<OwnedFd>,
        progress: OnProgress,
    ) -> Result<Started> {
        if self.is_closing() {
            return Err(Error::Closing);
        }
        match self.spawn_keeper(name, start, stdin, progress) {
            Ok((child, started)) => match self.follow(name, Some(child)) {
                Ok(()) => Ok(started),
                // It died as soon as it had said so. The guest goes on with another one.
                Err(error) if is_over(&self.settle(name)?) => Err(error),
                Err(_) => Ok(started),
            },
            Err(error) => {
                if is_over(&self.settle(name)?)
                    && let Some(qemu) = living_qemu(&self.home.machine(name))
                {
                    // Its keeper died with it in its hands, and nothing tells that the machine runs.
                    kill_if_same(qemu.qemu_pid, qemu.qemu_started);
                }
                Err(error)
            }
        }
    }

    fn spawn_keeper(
        &self,
        name: &MachineName,
        start: &Start,
        stdin: Option<OwnedFd>,
        on_progress: OnProgress,
    ) -> Result<(Child, Started)> {
        let machine = self.home.machine(name);
        let log = machine.log("keeper");
        let stderr =
            OpenOptions::new().create(true).append(true).open(&log).map_err(Error::io("open", &log))?;
        let display = self.qemu().map(|qemu| qemu.display).unwrap_or_default();
        let json = |text: serde_json::Result<String>| text.map_err(|e| Error::Internal(e.to_string()));
        let (start, display) = (json(serde_json::to_string(start))?, json(serde_json::to_string(&display))?);
        let program = own_program();
        let mut child = Command::new(&program)
            .arg0("watari")
            .arg("keeper")
            .arg(self.home.root())
            .arg(&self.options.tmpfs)
            .args([name.as_str(), &start, &display])
            .env("PATH", &self.options.search_path)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(Error::io("start the keeper", &program))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Error::Internal("the keeper has no standard output".to_owned()));
        };
        let started = client::read_reply(BufReader::new(stdout), |value| {
            if let Ok(progress) = serde_json::from_value::<Progress>(value) {
                on_progress(progress);
            }
        });
        match started {
            Ok(started) => Ok((child, started)),
            Err(report) => {
                child.wait().map_err(Error::io("wait for the keeper", &program))?;
                Err(report.into())
            }
        }
    }

    /// Follows a keeper that runs, on a thread of its own, until it ends.
    fn follow(self: &Arc<Self>, name: &MachineName, child: Option<Child>) -> Result<()> {
        let socket = self.home.machine(name).socket("keeper");
        let status: Status = match client::ask(&socket, &Request::Status, |_| {}) {
            Ok(status) => status,
            Err(report) => {
                // Of ours, and dead, or as good as that.
                if let Some(mut child) = child {
                    let ended = child.kill().and_then(|()| child.wait());
                    ended.map_err(Error::io("end the keeper", Path::new(name.as_str())))?;
                }
                return Err(report.into());
            }
        };
        let live = Arc::new(Live::new(status));
        self.set_live(name, live.clone());
        let (node, name) = (self.clone(), name.clone());
        std::thread::Builder::new()
            .name(format!("follow {name}"))
            .spawn(move || {
                let end = watch(&socket, &live);
                live.keeper.iter().for_each(Process::wait);
                reap(child);
                node.clear_live(&name, &live);
                // Before anyone is told, so that a daemon that ends now has nothing under way.
                node.sweep_heads();
                live.set_ended();
                if let Err(report) = end {
                    tracing::warn!(%name, %report, "lost the keeper");
                    let _busy = node.blocking_lock(&name);
                    if let Err(error) = node.settle(&name) {
                        tracing::error!(%name, error = &error as &dyn std::error::Error, "cannot settle");
                    }
                }
            })
            .map_err(Error::io("start a thread for", Path::new("keeper")))?;
        Ok(())
    }

    /// Makes what is written about a machine and what is true agree, and returns it. The machine's lock must be
    /// held.
    pub(crate) fn settle(self: &Arc<Self>, name: &MachineName) -> Result<MachineState> {
        let home = self.home.machine(name);
        let mut state = MachineState::load(&home)?;
        if self.live(name).is_some() || is_over(&state) {
            return Ok(state);
        }
        if self.follow(name, None).is_ok() {
            return Ok(state);
        }
        state.reason = match living_qemu(&home) {
            None => "its keeper and QEMU are gone".to_owned(),
            Some(qemu) => match self.adopt(name) {
                Ok(()) => return MachineState::load(&home).map_err(Error::from),
                Err(error) => {
                    // A QEMU without its disks' server cannot go on, and must not run beside a restored one.
                    kill_if_same(qemu.qemu_pid, qemu.qemu_started);
                    let why = ErrorReport::chain(&error);
                    format!("its keeper died, and a new one could not take over: {why}")
                }
            },
        };
        tracing::warn!(%name, reason = state.reason, "crashed");
        state.phase = Phase::Crashed;
        state.save(&home)?;
        Ok(state)
    }

    fn adopt(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let (child, _) = self.spawn_keeper(name, &Start::Adopt, None, &|_| {})?;
        tracing::info!(%name, "a new keeper took over");
        self.follow(name, Some(child))
    }
}

fn is_over(state: &MachineState) -> bool {
    !matches!(state.phase, Phase::Running | Phase::Paused)
}

/// The program this process runs, also after its file was replaced by a newer one.
fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

fn watch(socket: &Path, live: &Live) -> Result<(), ErrorReport> {
    client::ask::<serde_json::Value>(socket, &Request::Watch, |value| {
        if let Ok(status) = serde_json::from_value(value) {
            live.set_status(status);
        }
    })
    .map(drop)
}

fn reap(child: Option<Child>) {
    if let Some(mut child) = child
        && let Err(error) = child.wait()
    {
        tracing::warn!(%error, "cannot wait for a keeper");
    }
}

/// The QEMU that `instance.json` tells of, if that very process still runs.
pub(crate) fn living_qemu(home: &MachineHome) -> Option<QemuProcess> {
    let qemu: QemuProcess = load_json(&home.instance()).ok()?;
    (process_started(qemu.qemu_pid) == Some(qemu.qemu_started)).then_some(qemu)
}
