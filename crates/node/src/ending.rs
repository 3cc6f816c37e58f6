//! Ending machines: by asking the guest, by asking the keeper, by force.
//!
//! ```text
//!  end       the guest is asked to power off ───────────────────────────▶ ended
//!               │ it does not, or its keeper does not answer       ▲
//!  end_now      ▼ the keeper is asked to kill it ──────────────────┤
//!               │ it does not answer, or nothing comes of it       │
//!  end_both     ▼ SIGKILL to QEMU, then to the keeper ─────────────┘
//! ```
//!
//! A machine may be ending by itself, its keeper or its QEMU may be dying or stuck, at any of these steps. That an
//! order fails therefore says nothing; what counts is whether the processes end.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use watari_keeper::client;
use watari_keeper::protocol::{Request, Status};
use watari_keeper::{kill_if_same, process_started};
use watari_types::MachineName;

use crate::api::MachineInfo;
use crate::node::Node;
use crate::process::Process;
use crate::supervise::{Live, QemuProcess, living_qemu};
use crate::{Error, Result};

/// How long a guest may take to power off when everything is to end.
const POWER_OFF: Duration = Duration::from_secs(20);
/// How long its keeper may take, beside that, to reach the guest: an agent that does not answer costs seconds.
const ASKING: Duration = Duration::from_secs(15);
/// How long a keeper that does not answer any more may take to be gone, if it is ending.
const DYING: Duration = Duration::from_secs(1);
/// How long a keeper and its QEMU may take to end: a large memory is not given back at once.
const GOODBYE: Duration = Duration::from_secs(30);
/// How long another operation may hold a machine before it is looked at whether it still can end.
const BUSY: Duration = Duration::from_secs(10);

impl Node {
    /// Ends every machine, all at once: the guests are asked first, and killed if they have not powered off in
    /// time. From now on no machine is started.
    ///
    /// # Errors
    /// [`Error::NotEnded`] names the machines that run on; all others have ended, and machines can be started
    /// again.
    pub(crate) async fn end_all(self: &Arc<Self>) -> Result<()> {
        self.set_closing(true);
        let ending = self.all_machines().into_iter().map(|name| {
            let node = self.clone();
            async move {
                let ended = node.end_when_free(&name).await;
                ended.err().map(|error| (name, error))
            }
        });
        let failed: Vec<(MachineName, Error)> = join_all(ending).await.into_iter().flatten().collect();
        if failed.is_empty() {
            return Ok(());
        }
        for (name, error) in &failed {
            tracing::error!(%name, error = error as &dyn std::error::Error, "cannot end");
        }
        self.set_closing(false);
        Err(Error::NotEnded(failed))
    }

    /// The machines there are, and those that run although their folder is gone.
    fn all_machines(&self) -> BTreeSet<MachineName> {
        let mut names: BTreeSet<_> = self.followed().into_iter().collect();
        match self.home.machine_names() {
            Ok(found) => names.extend(found),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "ending what is followed"),
        }
        names
    }

    async fn end_when_free(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let busy = loop {
            match tokio::time::timeout(BUSY, self.lock(name)).await {
                Ok(busy) => break busy,
                // A checkpoint may take its time, but not with a keeper that will never end it.
                Err(_) => self.on_thread(name, |node, name| node.end_if_silent(name)).await?,
            }
        };
        self.on_thread(name, move |node, name| {
            let _busy = busy;
            node.end(name)
        })
        .await
    }

    async fn on_thread(
        self: &Arc<Self>,
        name: &MachineName,
        work: impl FnOnce(&Arc<Node>, &MachineName) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (node, name) = (self.clone(), name.clone());
        let done = tokio::task::spawn_blocking(move || work(&node, &name)).await;
        done.unwrap_or_else(|e| Err(Error::Internal(format!("ending a machine failed: {e}"))))
    }

    fn end_if_silent(&self, name: &MachineName) -> Result<()> {
        match self.live(name) {
            Some(live) if self.answers(name).is_err() => {
                end_both(living_qemu(&self.home.machine(name)), &live)
            }
            _ => Ok(()),
        }
    }

    /// Ends one machine, whatever it is doing. Its lock is held.
    fn end(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let mut ended = self.power_off(name);
        if ended.is_err() && self.live(name).is_none_or(|live| live.ends_within(DYING)) {
            // Its keeper died under our hands. Where QEMU lives, another one takes over and can ask the guest.
            ended = self.power_off(name);
        }
        if let Err(error) = ended {
            tracing::info!(%name, error = &error as &dyn std::error::Error, "did not power off; killing it");
            if let Some(live) = self.live(name) {
                self.end_now(name, &live)?;
            }
        }
        self.bury(name)
    }

    /// Asks the guest to power off, and waits. Nothing is to be done where no keeper runs.
    fn power_off(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        if self.live(name).is_none() {
            self.settle(name)?;
        }
        let Some(live) = self.live(name) else { return Ok(()) };
        self.answers(name)?;
        let request = Request::Stop { limit_ms: POWER_OFF.as_millis() as u64 };
        self.ask_within(name, &request, POWER_OFF + ASKING)?;
        live.wait_for_end()
    }

    /// Ends the machine at once. Takes the machine's lock only where no keeper is followed, so that a guest that
    /// does not power off can be killed while somebody waits for it.
    pub(crate) fn kill(self: &Arc<Self>, name: &MachineName) -> Result<MachineInfo> {
        let live = match self.live(name) {
            Some(live) => live,
            None => {
                let _busy = self.blocking_lock(name);
                self.running(name)?
            }
        };
        self.end_now(name, &live)?;
        self.info(name)
    }

    /// Kills a running machine and waits until it can be started again.
    pub(crate) fn end_now(&self, name: &MachineName, live: &Live) -> Result<()> {
        // This one and no later one: the machine's lock need not be held.
        let qemu = living_qemu(&self.home.machine(name));
        // The keeper knows how to write down that its machine was killed, so it gets the chance.
        let asked = self.answers(name).and_then(|()| self.ask_within(name, &Request::Kill, GOODBYE));
        let ended = live.ends_within(if asked.is_ok() { GOODBYE } else { DYING });
        if let Err(error) = asked.and_then(|()| if ended { Ok(()) } else { Err(endless("keeper")) }) {
            tracing::warn!(%name, error = &error as &dyn std::error::Error, "not ended by its keeper");
        }
        end_both(qemu, live)
    }

    /// Ends what may be left of a machine that nobody follows, and writes down what it is. Its lock is held.
    fn bury(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let home = self.home.machine(name);
        living_qemu(&home).map_or(Ok(()), |qemu| end_qemu(&qemu))?;
        end_listener(&home.socket("keeper"))?;
        if let Err(error) = self.settle(name) {
            tracing::warn!(%name, error = &error as &dyn std::error::Error, "ended, and cannot write that down");
        }
        Ok(())
    }

    /// Whether the machine's keeper answers what any keeper answers at once.
    fn answers(&self, name: &MachineName) -> Result<()> {
        client::ask::<Status>(&self.home.machine(name).socket("keeper"), &Request::Status, |_| {})?;
        Ok(())
    }

    /// Asks the keeper for what it answers with its status, and gives up after a time.
    fn ask_within(&self, name: &MachineName, request: &Request, limit: Duration) -> Result<()> {
        let socket = self.home.machine(name).socket("keeper");
        let mut line = serde_json::to_vec(request).map_err(|e| Error::Internal(e.to_string()))?;
        line.push(b'\n');
        let connect = || {
            let mut stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(&line)?;
            Ok(stream)
        };
        let stream = connect().map_err(Error::io("ask the keeper at", &socket))?;
        client::read_reply::<Status>(BufReader::new(stream), |_| {})?;
        Ok(())
    }
}

/// Ends a machine's processes by force, if they still run. QEMU first: a new keeper would take it over.
fn end_both(qemu: Option<QemuProcess>, live: &Live) -> Result<()> {
    qemu.map_or(Ok(()), |qemu| end_qemu(&qemu))?;
    live.kill_keeper();
    live.wait_for_end()
}

pub(crate) fn end_qemu(qemu: &QemuProcess) -> Result<()> {
    let process = Process::open(qemu.qemu_pid);
    kill_if_same(qemu.qemu_pid, qemu.qemu_started);
    let is_same = process_started(qemu.qemu_pid) == Some(qemu.qemu_started);
    match process {
        Some(process) if is_same && !process.ends_within(GOODBYE) => Err(endless("QEMU")),
        _ => Ok(()),
    }
}

/// Ends the keeper that still listens there, once its machine has ended: it was stuck when this daemon started, and
/// so was never followed.
fn end_listener(socket: &Path) -> Result<()> {
    let Ok(stream) = UnixStream::connect(socket) else { return Ok(()) };
    let peer = rustix::net::sockopt::socket_peercred(&stream)
        .map_err(|e| Error::io("find who listens on", socket)(e.into()))?;
    let Some(keeper) = Process::open(peer.pid.as_raw_nonzero().get().unsigned_abs()) else { return Ok(()) };
    keeper.kill();
    if keeper.ends_within(GOODBYE) { Ok(()) } else { Err(endless("keeper")) }
}

fn endless(process: &str) -> Error {
    Error::Internal(format!("its {process} does not end"))
}
