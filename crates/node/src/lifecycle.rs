//! What is done to one machine while it stays the same machine: start, stop, pause, resume, checkpoint,
//! its screen.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use watari_keeper::client;
use watari_keeper::protocol::{Checkpointed, MemoryFrom, Progress, Request, Start, Status};
use watari_keeper::record::{MachineState, Phase};
use watari_types::{MachineName, RevTarget};

use crate::api::{CheckpointInfo, CheckpointRequest, MachineInfo, Ready, StopRequest};
use crate::host::available_memory;
use crate::network::Cable;
use crate::node::{Node, OnProgress};
use crate::supervise::Live;
use crate::{Error, Result};

/// What QEMU and the keeper need beside the guest's memory.
const OVERHEAD_BYTES: u64 = 64 << 20;

impl Node {
    /// Runs a machine that does not: boots it, or resumes it where it was suspended.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &MachineName,
        arrived: Instant,
        progress: OnProgress,
    ) -> Result<Ready> {
        self.start_for(name, false, arrived, progress)
    }

    /// Like [`Self::start`]; for a debugger, a suspended machine is held where it was and has a socket for that.
    pub(crate) fn start_for(
        self: &Arc<Self>,
        name: &MachineName,
        gdb: bool,
        arrived: Instant,
        progress: OnProgress,
    ) -> Result<Ready> {
        let (home, file) = self.machine(name)?;
        self.ensure_mine(file.config.id)?;
        let cable = Cable::load(&home)?;
        let state = self.settle(name)?;
        self.ensure_may_start(&state)?;
        let (start, own_memory) = match (state.phase, state.resume_from) {
            (Phase::Running | Phase::Paused, _) => return Err(wrong_state(name, state.phase)),
            (Phase::Suspended, Some(snapshot)) => (
                Start::Resume {
                    snapshot,
                    generation: state.base.map(|base| base.generation).unwrap_or_default(),
                    network: state.network,
                    memory: MemoryFrom::Head,
                    held: gdb,
                    gdb,
                },
                !self.home.head(snapshot)?.exists(),
            ),
            _ => (Start::Boot { held: false }, true),
        };
        let needed = if own_memory { file.config.memory_bytes } else { 0 };
        self.ensure_memory(name, needed, 0)?;
        self.ensure_accelerator(&self.qemu()?, progress)?;
        self.run_keeper(name, &start, None, progress)?;
        if matches!(start, Start::Boot { .. }) && cable == Some(Cable { plugged: false }) {
            self.unplug(name)?;
        }
        self.ready(name, arrived)
    }

    /// Refuses a machine whose state is from a node that is not trusted. Where the snapshot cannot be read nobody knows
    /// whose it is; but then a machine that boots gets nothing of it, only what its disks have already.
    fn ensure_may_start(&self, state: &MachineState) -> Result<()> {
        let Some(base) = state.base else { return Ok(()) };
        match self.ensure_trusted(base.id) {
            Err(error @ Error::Untrusted { .. }) => Err(error),
            checked if state.resume_from.is_some() => checked,
            _ => Ok(()),
        }
    }

    /// Says that a machine runs.
    pub(crate) fn ready(&self, name: &MachineName, arrived: Instant) -> Result<Ready> {
        let ready_ms = arrived.elapsed().as_secs_f64() * 1e3;
        Ok(Ready { machine: self.info(name)?, ready_ms })
    }

    /// Refuses what would not fit into the host's memory. `returned` is what will be free by then.
    pub(crate) fn ensure_memory(&self, name: &MachineName, guest_bytes: u64, returned: u64) -> Result<()> {
        let (needed, free) = (guest_bytes + OVERHEAD_BYTES, available_memory()? + returned);
        if needed <= free {
            return Ok(());
        }
        Err(Error::NotEnoughMemory { name: name.clone(), needed_mib: needed >> 20, free_mib: free >> 20 })
    }

    /// Asks the guest to power off.
    pub(crate) fn stop(self: &Arc<Self>, name: &MachineName, request: StopRequest) -> Result<MachineInfo> {
        let live = self.running(name)?;
        self.ask::<Status>(name, &Request::Stop { limit_ms: request.limit_ms }, &|_| {})?;
        live.wait_for_end()?;
        self.info(name)
    }

    /// Holds the guest.
    pub(crate) fn pause(self: &Arc<Self>, name: &MachineName) -> Result<MachineInfo> {
        self.steer(name, &Request::Pause)
    }

    /// Lets the guest go on.
    pub(crate) fn resume(self: &Arc<Self>, name: &MachineName) -> Result<MachineInfo> {
        self.ensure_mine(self.machine(name)?.1.config.id)?;
        self.steer(name, &Request::Resume)
    }

    /// Captures the machine while it runs.
    pub(crate) fn checkpoint(
        self: &Arc<Self>,
        name: &MachineName,
        request: CheckpointRequest,
        progress: OnProgress,
    ) -> Result<CheckpointInfo> {
        self.running(name)?;
        if let Some(tag) = request.tag.as_deref().filter(|tag| !RevTarget::is_tag(tag)) {
            return Err(Error::BadRequest(format!(
                "{tag:?} cannot be a tag: use up to 64 letters, digits, '-', '_' and '.', not digits alone"
            )));
        }
        let request = Request::Checkpoint { message: request.message, tag: request.tag };
        self.ask::<Checkpointed>(name, &request, progress).map(CheckpointInfo::from)
    }

    /// The screen, as a PNG.
    pub(crate) fn screenshot(self: &Arc<Self>, name: &MachineName) -> Result<Vec<u8>> {
        #[derive(Deserialize)]
        struct Shot {
            path: PathBuf,
        }
        self.running(name)?;
        let Shot { path } = self.ask(name, &Request::Screenshot, &|_| {})?;
        let png = fs::read(&path).map_err(Error::io("read", &path));
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        png
    }

    pub(crate) fn steer(self: &Arc<Self>, name: &MachineName, request: &Request) -> Result<MachineInfo> {
        let live = self.running(name)?;
        live.set_status(self.ask(name, request, &|_| {})?);
        self.info(name)
    }

    /// The keeper of a machine that runs or is paused.
    pub(crate) fn running(self: &Arc<Self>, name: &MachineName) -> Result<Arc<Live>> {
        self.machine(name)?;
        let MachineState { phase, .. } = self.settle(name)?;
        self.live(name).ok_or_else(|| wrong_state(name, phase))
    }

    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        name: &MachineName,
        request: &Request,
        progress: OnProgress,
    ) -> Result<T> {
        let socket = self.home.machine(name).socket("keeper");
        let answer = client::ask(&socket, request, |value| {
            if let Ok(value) = serde_json::from_value::<Progress>(value) {
                progress(value);
            }
        })?;
        Ok(answer)
    }
}

/// That a machine is in the wrong state, and what would help.
pub(crate) fn wrong_state(name: &MachineName, phase: Phase) -> Error {
    let (state, hint) = match phase {
        Phase::Stopped => ("stopped", format!("`watari start {name}` boots it")),
        Phase::Suspended => ("suspended", format!("`watari start {name}` resumes it")),
        Phase::Running => ("running", format!("`watari stop {name}` or `watari kill {name}` first")),
        Phase::Paused => ("paused", format!("`watari resume {name}` or `watari kill {name}` first")),
        Phase::Crashed => (
            "crashed",
            format!("`watari restore {name}` resumes its last snapshot; `watari start {name}` boots it"),
        ),
    };
    Error::WrongState { name: name.clone(), state: state.to_owned(), hint }
}
