//! The source's side: everything is brought there while the guest runs, in snapshots first, then keeper to keeper; the guest is
//! held for the last of it, and handed over.

use std::fs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::time::timeout;
use watari_keeper::Loan;
use watari_keeper::protocol::{Checkpointed, Lending, Migrated, Progress, Request};
use watari_keeper::record::Phase;
use watari_mesh::exchange::{self, Given};
use watari_mesh::handover::{Action, Arriving, Call, Footing, Message, Reply, Visitor};
use watari_mesh::{Mesh, NodeInfo, Presence, Way};
use watari_store::Parcel;
use watari_types::{Epoch, ErrorKind, ErrorReport, Generation, MachineId, MachineName, NodeId, SnapshotId};

use crate::api::{TeleportRequest, Teleported};
use crate::lifecycle::wrong_state;
use crate::mesh::sending;
use crate::node::{Node, OnProgress};
use crate::{Error, Result};

/// A round that sent no more than this is the last one that becomes a snapshot: 8 MiB of pages.
const SMALL_ROUND: u64 = 2048;
/// More rounds only chase a guest that writes faster than the line is.
const MOST_ROUNDS: u32 = 5;
/// Of so many snapshots one may be there.
const MOST_LINE: usize = 1024;
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
    /// Whether it goes on there before what it holds has come.
    lazy: bool,
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
        if let Some(loan) = Loan::of(&self.home.machine(name))? {
            return Err(watari_keeper::Error::NotWhole { generation: loan.generation }.into());
        }
        let phase = self.running(name)?.status().phase;
        if phase != Phase::Running {
            return Err(wrong_state(name, phase));
        }
        let given = Given::default();
        let mut leaving =
            Leaving { node: self, mesh, name, machine, to, progress, given, lazy: request.lazy };
        let moved = leaving.prepare().and_then(|epoch| leaving.bring(epoch));
        let (generation, pause) = moved.map_err(|error| leaving.abort(error))?;
        let (epoch, taken) = leaving.hand_over()?;
        if request.lazy {
            self.send_lent(name);
        }
        Ok(Teleported {
            name: name.clone(),
            node: to,
            generation,
            epoch,
            downtime_ms: (pause + taken).as_secs_f64() * 1e3,
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
            let call = mesh.handover(to, machine, Call { message, visitor: None });
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
            if let Err(error) = node.send_all_lent().and_then(|()| node.repay_all()) {
                tracing::error!(error = &error as &dyn std::error::Error, "what was lent is not settled");
            }
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

    fn say(&self, message: Message, visitor: Option<Visitor>) -> Result<Reply> {
        let call = self.mesh.handover(self.to, self.machine, Call { message, visitor });
        Ok(Handle::current().block_on(call)?)
    }

    /// Asks whether the machine could come; at which epoch.
    fn prepare(&mut self) -> Result<Epoch> {
        self.tell("asking the node");
        let (_, file) = self.node.machine(self.name)?;
        let (config, bridge) = (Box::new(file.config), file.bridge);
        let qemu_version = self.node.qemu()?.version.to_string();
        let lazy = self.lazy;
        let visitor = Visitor { name: self.name.clone(), config, qemu_version, bridge, lazy };
        let (mut epoch, mut reply) = self.offer(&visitor)?;
        if reply.why.is_none() && matches!(reply.message, Some(Message::Decline(_))) {
            // It has heard of a later epoch than this node had, and has said which.
            (epoch, reply) = self.offer(&visitor)?;
        }
        if self.node.with_tenure(self.machine, |tenure| tenure.is_ready())? {
            return Ok(epoch);
        }
        Err(reply.why.map_or_else(|| refused(self.name), Error::Report))
    }

    fn offer(&self, visitor: &Visitor) -> Result<(Epoch, Reply)> {
        let actions = self.node.with_tenure(self.machine, |tenure| tenure.offer(self.to))?;
        let Some((_, message)) = self.node.carry_out(self.machine, actions)?.pop() else {
            return Err(Error::BadRequest(format!("{} is being moved already", self.name)));
        };
        let reply = self.say(message, Some(visitor.clone()))?;
        self.node.told(self.machine, self.to, &reply)?;
        Ok((message.epoch(), reply))
    }

    /// Lets the guest go on, if it is held, and tells the other side that nothing comes. It may know better why.
    fn abort(&self, error: Error) -> Error {
        let aborted = self.node.with_tenure(self.machine, |tenure| tenure.abort());
        let went_on = self.node.recover_one(self.name);
        if let Err(error) = &went_on {
            tracing::error!(name = %self.name, error = error as &dyn std::error::Error, "the guest stays held");
        }
        let mut why = None;
        for action in aborted.unwrap_or_default() {
            let Action::Send(_, message) = action else { continue };
            match self.say(message, None) {
                Ok(reply) => why = reply.why,
                Err(error) => {
                    tracing::debug!(name = %self.name, "the other node is not told that nothing comes: {error}")
                }
            }
        }
        // Each side of a connection that is cut only knows that the other is gone.
        let is_cut = |report: &ErrorReport| report.kind == ErrorKind::Unreachable;
        match why {
            Some(why) if is_cut(&error.report()) && !is_cut(&why) => Error::Report(why),
            _ => error,
        }
    }

    /// Brings the machine there, and holds its guest; or its guest alone, and lends it the rest. Returns the newest snapshot that
    /// it has here, and how long it was held so far.
    fn bring(&mut self, epoch: Epoch) -> Result<(Option<Generation>, Duration)> {
        if self.lazy {
            let head = self.node.store.refs(self.machine).head()?;
            let lineage = head.map(|head| self.node.store.ancestry(head.id, MOST_LINE)).transpose()?;
            self.node.begin_lending(self.name, self.to)?;
            let pause = self.send_the_rest(lineage.unwrap_or_default(), epoch)?;
            return Ok((head.map(|head| head.generation), pause));
        }
        let last = self.bring_snapshots()?;
        let pause = self.send_the_rest(vec![last.id], epoch)?;
        Ok((Some(last.generation), pause))
    }

    /// Brings everything there while the guest runs, until little is left.
    fn bring_snapshots(&mut self) -> Result<Checkpointed> {
        let mut last = u64::MAX;
        for round in 1.. {
            self.tell(&format!("capturing, round {round}"));
            let captured = self.capture()?;
            let sent = self.give(&captured)?.pages;
            let shrinks = sent < last / 4 * 3;
            last = sent;
            if sent <= SMALL_ROUND || !shrinks || round == MOST_ROUNDS {
                return Ok(captured);
            }
        }
        Err(refused(self.name))
    }

    fn capture(&self) -> Result<Checkpointed> {
        let message = format!("on its way to {}", self.to);
        self.node.ask(self.name, &Request::Checkpoint { message, tag: None }, self.progress)
    }

    fn give(&mut self, captured: &Checkpointed) -> Result<Given> {
        let parcel =
            Parcel { machine: self.machine, generation: captured.generation, id: captured.id, tags: &[] };
        let mut link = Handle::current().block_on(self.mesh.begin_giving(self.to, None))?;
        let given = exchange::give(&mut link, &self.node.store, &parcel, self.name, &|sent| {
            (self.progress)(sending(&sent))
        })?;
        self.given.pages += given.pages;
        self.given.bytes += given.bytes;
        Ok(given)
    }

    /// Sends what it has written since, keeper to keeper, and holds the guest for the last of it.
    fn send_the_rest(&mut self, lineage: Vec<SnapshotId>, epoch: Epoch) -> Result<Duration> {
        self.tell("handing over");
        let (home, file) = self.node.machine(self.name)?;
        let arriving = Arriving {
            epoch,
            name: self.name.clone(),
            config: Box::new(file.config),
            lineage,
            lazy: self.lazy,
            retention: file.retention,
            bridge: file.bridge,
        };
        let begun = self.mesh.begin_migrating(self.to, self.machine, arriving);
        let (way, Footing { base, lacks_boot }) = Handle::current().block_on(begun)?;
        let socket = home.socket("migrate");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
        let passing = Handle::current().spawn(pass_on(way, listener));
        self.node.mark_held(self.name, true)?;
        let request = match self.lazy {
            true => {
                Request::LeaveFirst { socket: socket.clone(), lending: Lending { base, boot: lacks_boot } }
            }
            false => Request::Migrate { socket: socket.clone() },
        };
        let migrated = self.node.ask::<Migrated>(self.name, &request, self.progress);
        let _ = fs::remove_file(&socket);
        let migrated = migrated.inspect_err(|_| passing.abort())?;
        self.given.pages += migrated.pages;
        self.given.bytes += migrated.bytes;
        Ok(Duration::from_secs_f64(migrated.pause_ms / 1e3))
    }

    /// Hands it over, and waits until it is known what became of it. Returns the epoch at which it runs there, and how long that
    /// took.
    fn hand_over(&self) -> Result<(Epoch, Duration)> {
        let began = Instant::now();
        let actions = self.node.with_tenure(self.machine, |tenure| tenure.hand_over())?;
        let said = self.node.carry_out(self.machine, actions).map_err(|error| self.abort(error))?;
        let Some((_, message)) = said.into_iter().next() else { return Err(self.abort(refused(self.name))) };
        let mut reply = self.say(message, None);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let took = began.elapsed();
            match &reply {
                Ok(reply) => {
                    self.node.told(self.machine, self.to, reply)?;
                    match reply.message {
                        Some(Message::Running(epoch)) => return Ok((epoch, took)),
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

/// Passes on what the keeper that connects here says. A keeper that is killed before it can never does.
async fn pass_on(way: Way, listener: UnixListener) {
    let passed = async { way.pass_on(listener.accept().await?.0.into_std()?).await };
    if let Err(error) = passed.await {
        tracing::debug!("what the keepers say is not passed on any more: {error}");
    }
}

fn refused(name: &MachineName) -> Error {
    ErrorReport::new(ErrorKind::Forbidden, format!("the node does not take {name}"), "it runs on here").into()
}
