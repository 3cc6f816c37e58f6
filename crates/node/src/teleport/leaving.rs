//! The source's side: everything is brought there while the guest runs, then it is held and handed over.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;
use watari_keeper::protocol::{Checkpointed, Progress, Request};
use watari_keeper::record::Phase;
use watari_mesh::exchange::{self, Given};
use watari_mesh::handover::{Action, Call, Details, Message, Reply};
use watari_mesh::{Mesh, NodeInfo, Presence};
use watari_store::Parcel;
use watari_types::{ErrorKind, ErrorReport, MachineId, MachineName, NodeId};

use crate::api::{TeleportRequest, Teleported};
use crate::lifecycle::wrong_state;
use crate::node::{Node, OnProgress};
use crate::{Error, Result};

/// A round that sent no more than this is followed by the pause: 8 MiB of pages.
const SMALL_ROUND: u64 = 2048;
/// More rounds only chase a guest that writes faster than the line is.
const MOST_ROUNDS: u32 = 5;
/// How long the command waits for a node that took a machine and does not say what became of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one of them may take to say it.
const REMINDING: Duration = Duration::from_secs(2);
/// How often those are asked that were not heard from for longer.
const ROUND: Duration = Duration::from_secs(5);

/// A machine on its way.
struct Leaving<'a> {
    node: &'a Arc<Node>,
    mesh: Mesh,
    name: &'a MachineName,
    machine: MachineId,
    to: NodeId,
    progress: OnProgress<'a>,
    given: Given,
}

impl Node {
    /// Moves a running machine to another node.
    ///
    /// # Errors
    /// The machine runs on here; unless the other node was lost just as it took the machine over: then it is held here until
    /// that one is heard from.
    pub(crate) fn teleport(
        self: &Arc<Self>,
        name: &MachineName,
        request: &TeleportRequest,
        progress: OnProgress,
    ) -> Result<Teleported> {
        let began = Instant::now();
        let machine = self.machine(name)?.1.config.id;
        let mesh = self.mesh()?;
        let to = mesh.find(&request.node)?;
        if to == self.id {
            return Err(Error::BadRequest(format!("{name} is on that node already")));
        }
        self.ensure_mine(machine)?;
        let phase = self.running(name)?.status().phase;
        if phase != Phase::Running {
            return Err(wrong_state(name, phase));
        }
        let given = Given::default();
        let mut leaving = Leaving { node: self, mesh, name, machine, to, progress, given };
        let prepared = leaving.prepare();
        prepared.inspect_err(|_| leaving.abort())?;
        let moved = leaving.bring().and_then(|()| leaving.hold_and_bring_the_rest());
        let (last, held) = moved.inspect_err(|_| leaving.abort())?;
        let epoch = leaving.hand_over(&last)?;
        Ok(Teleported {
            name: name.clone(),
            node: to,
            generation: last.generation,
            epoch,
            downtime_ms: held.elapsed().as_secs_f64() * 1e3,
            total_ms: began.elapsed().as_secs_f64() * 1e3,
            bytes_sent: leaving.given.bytes,
            pages_sent: leaving.given.pages,
        })
    }

    /// Acts on what a node has said about a machine that was offered to it.
    fn told(self: &Arc<Self>, machine: MachineId, from: NodeId, reply: &Reply) -> Result<()> {
        let Some(message) = reply.message else { return Ok(()) };
        let actions = self.with_tenure(machine, |tenure| tenure.handle(from, message))?;
        self.carry_out(machine, actions).map(drop)
    }

    /// Asks those to whom machines were offered, and who have not said what became of them; and tells all that are there of
    /// those that live here, should a person have taken back what another one runs.
    fn remind_others(self: &Arc<Self>) {
        let Some(mesh) = self.in_mesh() else { return };
        let is_there = |node: &NodeInfo| matches!(node.presence, Presence::Alive | Presence::Suspect);
        let there: Vec<NodeId> = mesh.nodes().into_iter().filter(is_there).map(|node| node.id).collect();
        for machine in self.travelled() {
            for to in &there {
                if let Err(error) = self.remind(&mesh, machine, *to) {
                    tracing::debug!(%machine, node = %to, "what became of it is not known: {error}");
                }
            }
        }
    }

    fn remind(self: &Arc<Self>, mesh: &Mesh, machine: MachineId, to: NodeId) -> Result<()> {
        // Not while it is being handed over: who is asked then says that it will not take it.
        let _busy = self.name_of(machine)?.map(|name| self.blocking_lock(&name));
        for action in self.with_tenure(machine, |tenure| tenure.remind(to))? {
            let Action::Send(to, message) = action else { continue };
            let call = mesh.handover(to, machine, Call { message, details: None });
            // Others wait for the machine meanwhile.
            let reply = Handle::current().block_on(async { timeout(REMINDING, call).await });
            match reply {
                Ok(reply) => self.told(machine, to, &reply?)?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Now and then asks after machines that were offered; first of all, does what follows for guests that a daemon before this one
/// held.
pub(crate) async fn settle_offers(node: Weak<Node>) {
    let mut is_first = true;
    loop {
        let Some(node) = node.upgrade() else { return };
        let work = tokio::task::spawn_blocking(move || {
            if is_first && let Err(error) = node.recover_held() {
                tracing::error!(error = &error as &dyn std::error::Error, "a hand-over is not settled");
            }
            node.remind_others();
        });
        let _ = work.await;
        is_first = false;
        tokio::time::sleep(ROUND).await;
    }
}

impl Leaving<'_> {
    fn tell(&self, step: &str) {
        (self.progress)(Progress { step: step.to_owned(), done: 0, total: 0 });
    }

    fn say(&self, message: Message, details: Option<Details>) -> Result<Reply> {
        let call = self.mesh.handover(self.to, self.machine, Call { message, details });
        Ok(Handle::current().block_on(call)?)
    }

    /// Asks whether the machine could come.
    fn prepare(&mut self) -> Result<()> {
        self.tell("asking the node");
        let actions = self.node.with_tenure(self.machine, |tenure| tenure.offer(self.to))?;
        let Some((_, message)) = self.node.carry_out(self.machine, actions)?.pop() else {
            return Err(Error::BadRequest(format!("{} is being moved already", self.name)));
        };
        let (_, file) = self.node.machine(self.name)?;
        let config = Box::new(file.config);
        let qemu_version = self.node.qemu()?.version.to_string();
        let details = Details::Prepare { name: self.name.clone(), config, qemu_version };
        let reply = self.say(message, Some(details))?;
        self.node.told(self.machine, self.to, &reply)?;
        if self.node.with_tenure(self.machine, |tenure| tenure.is_ready())? {
            return Ok(());
        }
        Err(reply.why.map_or_else(|| refused(self.name), Error::Report))
    }

    /// Lets the guest go on, if it is held, and tells the other side that nothing comes.
    fn abort(&self) {
        let aborted = self.node.with_tenure(self.machine, |tenure| tenure.abort());
        let went_on = self.node.recover_one(self.name);
        if let Err(error) = &went_on {
            tracing::error!(name = %self.name, error = error as &dyn std::error::Error, "the guest stays held");
        }
        for action in aborted.unwrap_or_default() {
            if let Action::Send(_, message) = action
                && let Err(error) = self.say(message, None)
            {
                tracing::debug!(name = %self.name, "the other node is not told that nothing comes: {error}");
            }
        }
    }

    /// Brings everything there while the guest runs, until little is left.
    fn bring(&mut self) -> Result<()> {
        let mut last = u64::MAX;
        for round in 1..=MOST_ROUNDS {
            self.tell(&format!("capturing, round {round}"));
            let captured = self.capture()?;
            let sent = self.give(&captured)?.pages;
            let shrinks = sent < last / 4 * 3;
            last = sent;
            if sent <= SMALL_ROUND || !shrinks {
                break;
            }
        }
        Ok(())
    }

    fn capture(&self) -> Result<Checkpointed> {
        let message = format!("on its way to {}", self.to);
        self.node.ask(self.name, &Request::Checkpoint { message, tag: None }, self.progress)
    }

    fn give(&mut self, captured: &Checkpointed) -> Result<Given> {
        let parcel =
            Parcel { machine: self.machine, generation: captured.generation, id: captured.id, tags: &[] };
        let mut link = Handle::current().block_on(self.mesh.begin_giving(self.to, None))?;
        let given = exchange::give(&mut link, &self.node.store, &parcel, self.name, &|done| {
            let (done, total) = (done.pages_done, done.pages_total);
            (self.progress)(Progress { step: "sending pages".to_owned(), done, total });
        })?;
        self.given.pages += given.pages;
        self.given.bytes += given.bytes;
        Ok(given)
    }

    /// Holds the guest, and brings there what it has written since.
    fn hold_and_bring_the_rest(&mut self) -> Result<(Checkpointed, Instant)> {
        self.tell("handing over");
        self.node.mark_held(self.name, true)?;
        let held = Instant::now();
        self.node.steer(self.name, &Request::Pause)?;
        let captured = self.capture()?;
        self.give(&captured)?;
        Ok((captured, held))
    }

    /// Hands it over, and waits until it is known what became of it.
    fn hand_over(&self, last: &Checkpointed) -> Result<watari_types::Epoch> {
        let actions = self.node.with_tenure(self.machine, |tenure| tenure.hand_over())?;
        let said = self.node.carry_out(self.machine, actions).inspect_err(|_| self.abort())?;
        let Some((_, message)) = said.into_iter().next() else {
            self.abort();
            return Err(refused(self.name));
        };
        let retention = self.node.machine(self.name).map(|(_, file)| file.retention).unwrap_or_default();
        let (name, generation, snapshot) = (self.name.clone(), last.generation, last.id);
        let mut reply = self.say(message, Some(Details::Commit { name, generation, snapshot, retention }));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match &reply {
                Ok(reply) => {
                    self.node.told(self.machine, self.to, reply)?;
                    match reply.message {
                        Some(Message::Running(epoch)) => return Ok(epoch),
                        Some(Message::Refuse(_)) => {
                            let why = reply.why.clone();
                            return Err(why.map_or_else(|| refused(self.name), Error::Report));
                        }
                        _ => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(name = %self.name, "the node that took it is not heard: {error}")
                }
            }
            if Instant::now() >= deadline {
                self.node.ensure_mine(self.machine)?;
                return Err(refused(self.name));
            }
            self.tell("waiting to hear what became of it");
            thread::sleep(AGAIN);
            reply = self.say(Message::Ask(message.epoch()), None);
        }
    }
}

fn refused(name: &MachineName) -> Error {
    ErrorReport::new(ErrorKind::Forbidden, format!("the node does not take {name}"), "it runs on here").into()
}
