//! One node's part in its mesh.
//!
//! ```text
//!   found ──┐
//!   join ───┼─► listens, calls the others, tells them who belongs to the mesh and where it is itself
//!   open ───┘       │ a stranger may ask for one thing: to be let in, with a ticket
//!                   │ a member may ask for the roll, for what is held here, to give a snapshot or be given one
//!                   ▼
//!                 Host: what the daemon does about it
//! ```
//! Who belongs to it is [`Roll`]'s to decide, who is there foca's; here they are asked and what follows is done.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use iroh::endpoint::{RecvStream, SendStream};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use watari_store::NodeKey;
use watari_types::{ErrorReport, MachineId, MachineName, MeshId, NodeId, NodeName};

use crate::Error;
use crate::exchange::Link;
use crate::folder::Folder;
use crate::handover::{Arriving, Call, Footing, Reply};
use crate::invitations::Invitations;
use crate::lanes::{self, Lanes};
use crate::peers::{Listen, Peers};
use crate::pulse::{Presence, Pulse};
use crate::roll::{Contact, Records, Roll};
use crate::server;
use crate::ticket::Ticket;
use crate::way::Way;
use crate::wire::{self, Ask, Holdings};

/// Who belongs to the mesh.
const ROLL: &str = "roll.json";
/// Which tickets are out.
const INVITATIONS: &str = "invitations.json";
/// Where it listens, so that others find it there again.
const ADDRESSES: &str = "addresses.json";
/// How often it is looked whether this node has other addresses, and one of the others is asked what is new.
const ROUND: Duration = Duration::from_secs(5);

/// What the daemon does for other members. Called off the async threads.
pub trait Host: Send + Sync + 'static {
    /// What is held here.
    fn holdings(&self) -> Holdings;

    /// Takes a snapshot from a member.
    fn take(&self, from: NodeId, link: &mut Link);

    /// Does what a member says about who may run a machine.
    fn handover(&self, from: NodeId, machine: MachineId, call: Call) -> Reply;

    /// Gets ready for a machine that comes from a member. Returns where its keeper here listens for what its keeper there says,
    /// and what there is of it.
    ///
    /// # Errors
    /// It is not to come, or cannot.
    fn receive(
        &self,
        from: NodeId,
        machine: MachineId,
        arriving: Arriving,
    ) -> Result<(UnixStream, Footing), ErrorReport>;

    /// Where the keeper of a machine that was lent to a member listens for what is wanted of it.
    ///
    /// # Errors
    /// It was not, or is not any more.
    fn lend(&self, to: NodeId, machine: MachineId) -> Result<UnixStream, ErrorReport>;

    /// Where somebody at a member who watches a machine that lives here, and may use it or not, is answered in HTTP; and what the
    /// machine is called here.
    ///
    /// # Errors
    /// It does not live here.
    fn watch(&self, machine: MachineId, may_control: bool) -> Result<(UnixStream, MachineName), ErrorReport>;

    /// Gives a member the snapshot that a revision names here.
    fn give(&self, to: NodeId, rev: &str, link: &mut Link);
}

/// What a node is in a mesh with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its key, which is what it is known by.
    pub key: NodeKey,
    /// Where it keeps what it knows of the mesh.
    pub folder: PathBuf,
    /// What it calls itself.
    pub name: NodeName,
    /// The version of this program.
    pub program: String,
    /// Where it listens.
    pub listen: Listen,
}

/// A node of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its key.
    pub id: NodeId,
    /// What it calls itself, if it has said so.
    pub name: Option<NodeName>,
    /// The version of Watari that it runs.
    pub program: String,
    /// Where it is: the way that is used, or what it says of itself.
    pub address: String,
    /// Whether it is there.
    pub presence: Presence,
    /// How long it takes to it and back.
    pub round_trip: Option<Duration>,
}

/// This node's part in a mesh, until it is closed. Cheap to clone.
#[derive(Clone)]
pub struct Mesh(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) me: NodeId,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) peers: Peers,
    pub(crate) pulse: Pulse,
    pub(crate) lanes: Arc<Lanes>,
    folder: Folder,
    roll: Mutex<Roll>,
    invitations: Mutex<Invitations>,
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Io {
        action: "get random bytes from",
        path: "the kernel".into(),
        source: e.into(),
    })?;
    Ok(bytes)
}

impl Mesh {
    /// Goes on in the mesh that this node belongs to, if it does.
    ///
    /// # Errors
    /// What is known of it cannot be read, or the node cannot listen.
    pub async fn open(options: Options, host: Arc<dyn Host>) -> Result<Option<Mesh>, Error> {
        let me = options.key.id();
        match Folder::new(&options.folder).load::<Records>(ROLL)? {
            None => Ok(None),
            Some(records) => Mesh::start(options, Roll::load(me, records)?, host).await.map(Some),
        }
    }

    /// Begins a mesh of one.
    ///
    /// # Errors
    /// The node cannot listen, or not write it down.
    pub async fn found(options: Options, host: Arc<dyn Host>) -> Result<Mesh, Error> {
        let roll = Roll::found(MeshId(random()?), &options.key);
        Folder::new(&options.folder).save(ROLL, &roll.records())?;
        Mesh::start(options, roll, host).await
    }

    /// Becomes a member of somebody's mesh.
    ///
    /// # Errors
    /// This node belongs to no mesh then.
    pub async fn join(options: Options, ticket: &Ticket, host: Arc<dyn Host>) -> Result<Mesh, Error> {
        let me = options.key.id();
        if ticket.host == me {
            return Err(Error::Ticket("it was made by this node".to_owned()));
        }
        let listen = Listen { addresses: Vec::new(), relay: options.listen.relay.clone() };
        let peers = Peers::listen(&options.key, &listen).await?;
        peers.learn_addresses(ticket.host, &ticket.addresses, ticket.relay.as_deref());
        let asked = ask_to_join(&peers, &options, ticket).await;
        peers.close().await;
        let roll = Roll::joined(me, ticket.host, asked?)?;
        if roll.mesh() != ticket.mesh {
            return Err(Error::Ticket("it is of another mesh than the node that made it".to_owned()));
        }
        Folder::new(&options.folder).save(ROLL, &roll.records())?;
        let mesh = Mesh::start(options, roll, host).await?;
        mesh.0.peers.learn_addresses(ticket.host, &ticket.addresses, ticket.relay.as_deref());
        mesh.sync(ticket.host).await?;
        Ok(mesh)
    }

    async fn start(mut options: Options, roll: Roll, host: Arc<dyn Host>) -> Result<Mesh, Error> {
        let (me, folder) = (options.key.id(), Folder::new(&options.folder));
        if options.listen.addresses.is_empty() {
            options.listen.addresses = folder.load(ADDRESSES)?.unwrap_or_default();
        }
        let peers = Peers::listen(&options.key, &options.listen).await?;
        folder.save(ADDRESSES, &peers.bound())?;
        let invitations = folder.load(INVITATIONS)?.unwrap_or_default();
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let weak = inner.clone();
            let send = Arc::new(move |to: NodeId, bytes: Bytes| {
                if let Some(inner) = weak.upgrade() {
                    Mesh(inner).send_datagram(to, bytes);
                }
            });
            let pulse = Pulse::start(me, unix().as_millis() as u64, send);
            let (roll, invitations) = (Mutex::new(roll), Mutex::new(invitations));
            Inner { options, me, host, peers, pulse, lanes: Arc::default(), folder, roll, invitations }
        });
        let mesh = Mesh(inner);
        mesh.announce()?;
        mesh.apply().await;
        tokio::spawn(server::accept(mesh.clone()));
        tokio::spawn(rounds(Arc::downgrade(&mesh.0)));
        Ok(mesh)
    }

    /// Whether a node belongs to the mesh.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.0.roll.lock().is_member(node)
    }

    /// A ticket that lets one node in, for as long as it is valid.
    ///
    /// # Errors
    /// Too many are out, or it cannot be written down: the ticket is not made.
    pub fn invite(&self, valid: Duration) -> Result<Ticket, Error> {
        let now = unix().as_secs();
        let (secret, expires_unix_s) = (random()?, now + valid.as_secs());
        let mut invitations = self.0.invitations.lock();
        invitations.open(&secret, expires_unix_s, now).map_err(|e| Error::Ticket(e.to_string()))?;
        self.0.folder.save(INVITATIONS, &*invitations)?;
        let addresses = self.0.peers.addresses().into_iter().take(Ticket::MOST_ADDRESSES).collect();
        let (mesh, relay) = (self.0.roll.lock().mesh(), self.0.options.listen.relay.clone());
        Ok(Ticket { mesh, host: self.0.me, addresses, relay, secret, expires_unix_s })
    }

    /// Lets a node in that has a ticket's secret; what it has to know.
    pub(crate) async fn admit(&self, node: NodeId, secret: &[u8; 16]) -> Result<Records, Error> {
        {
            let mut invitations = self.0.invitations.lock();
            invitations.take(secret, unix().as_secs()).map_err(|e| Error::Ticket(e.to_string()))?;
            // Before anybody is let in: whatever happens then, it is used up.
            self.0.folder.save(INVITATIONS, &*invitations)?;
        }
        self.change(|roll| Ok(roll.admit(&self.0.options.key, node)?))?;
        tracing::info!(%node, "was let into the mesh");
        self.apply().await;
        self.tell();
        Ok(self.0.roll.lock().records())
    }

    /// Takes a node out of the mesh, at once where this is heard.
    ///
    /// # Errors
    /// It is not in it, or that cannot be written down: it is as it was.
    pub async fn remove(&self, node: NodeId) -> Result<(), Error> {
        self.take_out(node).await?;
        self.apply().await;
        Ok(())
    }

    /// The same, but that its connection goes on until it is told.
    pub(crate) async fn take_out(&self, node: NodeId) -> Result<(), Error> {
        self.change(|roll| Ok(roll.remove(&self.0.options.key, node)?))?;
        tracing::info!(%node, "was taken out of the mesh");
        self.tell_and_wait().await;
        Ok(())
    }

    /// Leaves the mesh: another member takes this node out, if one is there. If none is, the others see a node that is down
    /// until somebody takes it out. Whether one was.
    ///
    /// # Errors
    /// What this node knows of the mesh cannot be taken away: it still belongs to it.
    pub async fn leave(self) -> Result<bool, Error> {
        let mut is_out = false;
        for node in self.others() {
            if self.0.peers.connected(node).is_some() && self.request::<()>(node, &Ask::Leave).await.is_ok() {
                is_out = true;
                break;
            }
        }
        self.0.folder.remove()?;
        self.0.peers.close().await;
        Ok(is_out)
    }

    /// The nodes of the mesh, this one among them.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let roll = self.0.roll.lock();
        let info = |(id, contact): (NodeId, Option<&Contact>)| {
            let way = self.0.peers.round_trip(id);
            let said = contact.and_then(|contact| contact.addresses().first()).map(SocketAddr::to_string);
            NodeInfo {
                id,
                name: contact.map(|contact| contact.name().clone()),
                program: contact.map(|contact| contact.program().to_owned()).unwrap_or_default(),
                round_trip: way.as_ref().map(|(time, _)| *time),
                address: way.map(|(_, address)| address).or(said).unwrap_or_default(),
                presence: self.0.pulse.presence(id),
            }
        };
        roll.members().map(info).collect()
    }

    /// The node of that name, or whose id begins like this.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] if there is none, or several.
    pub fn find(&self, text: &str) -> Result<NodeId, Error> {
        let nodes = self.nodes();
        let is_named =
            |node: &&NodeInfo| node.name.as_ref().is_some_and(|name| name.as_str() == text.to_lowercase());
        let begins =
            |node: &&NodeInfo| text.len() >= 4 && node.id.to_string().starts_with(&text.to_lowercase());
        let mut found: Vec<&NodeInfo> = nodes.iter().filter(is_named).collect();
        if found.is_empty() {
            found = nodes.iter().filter(begins).collect();
        }
        match found[..] {
            [node] => Ok(node.id),
            [] => Err(Error::UnknownNode(format!("no node of the mesh is called {text:?}"))),
            _ => Err(Error::UnknownNode(format!("several nodes of the mesh answer to {text:?}: use an id"))),
        }
    }

    /// What a node has.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn holdings(&self, node: NodeId) -> Result<Holdings, Error> {
        if node == self.0.me {
            let host = Arc::clone(&self.0.host);
            return tokio::task::spawn_blocking(move || host.holdings())
                .await
                .map_err(|_| Error::Internal("what is held here could not be told"));
        }
        Ok(self.request(node, &Ask::Holdings).await?.0)
    }

    /// Says something to a node about who may run a machine; what it says to that.
    ///
    /// # Errors
    /// It does not answer. Whether it has heard is not known.
    pub async fn handover(&self, node: NodeId, machine: MachineId, call: Call) -> Result<Reply, Error> {
        Ok(self.request(node, &Ask::Handover { machine, call: Box::new(call) }).await?.0)
    }

    /// Has a node get ready for a machine; the way over which its keeper here then speaks to the one there, and what there is of
    /// it.
    ///
    /// # Errors
    /// It does not answer, or will not.
    pub async fn begin_migrating(
        &self,
        node: NodeId,
        machine: MachineId,
        arriving: Arriving,
    ) -> Result<(Way, Footing), Error> {
        let ask = Ask::Migrate { machine, arriving: Box::new(arriving) };
        let (footing, send, receive) = self.request(node, &ask).await?;
        Ok((Way::over(send, receive), footing))
    }

    /// The way over which a keeper here takes what it needs of a machine that a node has lent.
    ///
    /// # Errors
    /// It does not answer, or will not.
    pub async fn begin_borrowing(&self, node: NodeId, machine: MachineId) -> Result<Way, Error> {
        let ((), send, receive) = self.request(node, &Ask::Lend { machine }).await?;
        Ok(Way::over(send, receive))
    }

    /// The way over which a node that a machine lives on is asked about it, in HTTP, for somebody who watches it here; and what the
    /// machine is called there.
    ///
    /// # Errors
    /// It does not answer, or will not.
    pub async fn begin_watching(
        &self,
        node: NodeId,
        machine: MachineId,
        may_control: bool,
    ) -> Result<(Way, MachineName), Error> {
        let (name, send, receive) = self.request(node, &Ask::Watch { machine, may_control }).await?;
        Ok((Way::over(send, receive).before_others(), name))
    }

    /// Has a node take a snapshot: what follows is for [`give`](crate::exchange::give), at most so many bytes a second. It is not
    /// waited for whether it will.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn begin_giving(&self, node: NodeId, limit: Option<u64>) -> Result<Link, Error> {
        let lanes = random()?;
        let (mut send, receive) = self.call(node).await?;
        wire::say(&mut send, &self.0.options.program, &Ask::Take { lanes }).await?;
        let mut link = Link::unanswered(&Handle::current(), receive, send, limit);
        lanes::open(self, node, lanes, &mut link).await?;
        Ok(link)
    }

    /// Has a node give a snapshot: what follows is for [`take`](crate::exchange::take).
    ///
    /// # Errors
    /// It does not answer, or will not.
    pub async fn begin_taking(&self, node: NodeId, rev: &str) -> Result<Link, Error> {
        let lanes = random()?;
        let ((), send, receive) = self.request(node, &Ask::Give { rev: rev.to_owned(), lanes }).await?;
        let mut link = Link::over(&Handle::current(), receive, send, None);
        let expected = self.0.lanes.expect(node, lanes, link.inlet());
        link.keep(expected);
        Ok(link)
    }

    /// Asks a member something.
    async fn request<T: serde::de::DeserializeOwned>(
        &self,
        node: NodeId,
        what: &Ask,
    ) -> Result<(T, SendStream, RecvStream), Error> {
        let (mut send, mut receive) = self.call(node).await?;
        let answer = wire::ask(&mut send, &mut receive, &self.0.options.program, what).await?;
        Ok((answer, send, receive))
    }

    /// A stream to a member.
    async fn call(&self, node: NodeId) -> Result<(SendStream, RecvStream), Error> {
        if !self.is_member(node) {
            return Err(Error::UnknownNode(format!("{node} does not belong to the mesh")));
        }
        let (connection, is_new) = self.0.peers.connect(node).await?;
        if is_new {
            tokio::spawn(server::serve(self.clone(), connection.clone()));
        }
        connection.open_bi().await.map_err(Error::cut)
    }

    /// What a member says about who belongs to the mesh; what it does not know itself.
    pub(crate) async fn hear(
        &self,
        from: NodeId,
        digest: [u8; 32],
        records: Option<&Records>,
    ) -> Result<Option<Records>, Error> {
        if let Some(records) = records {
            self.merge(from, records).await?;
        }
        let roll = self.0.roll.lock();
        Ok((roll.digest() != digest).then(|| roll.records()))
    }

    async fn merge(&self, from: NodeId, records: &Records) -> Result<(), Error> {
        let merged = self.change(|roll| Ok(roll.merge(from, records)?))?;
        for refused in merged.refused {
            tracing::warn!(%from, "what it says about a member is refused: {refused}");
        }
        if merged.changed {
            self.apply().await;
            self.tell();
        }
        Ok(())
    }

    /// Asks a node who belongs to the mesh, and tells it.
    async fn sync(&self, node: NodeId) -> Result<(), Error> {
        let digest = self.0.roll.lock().digest();
        let (theirs, ..) =
            self.request::<Option<Records>>(node, &Ask::Roll { digest, records: None }).await?;
        let Some(theirs) = theirs else { return Ok(()) };
        self.merge(node, &theirs).await?;
        let (digest, records) = {
            let roll = self.0.roll.lock();
            (roll.digest(), roll.records())
        };
        let records = Some(Box::new(records));
        if let (Some(rest), ..) =
            self.request::<Option<Records>>(node, &Ask::Roll { digest, records }).await?
        {
            self.merge(node, &rest).await?;
        }
        Ok(())
    }

    /// Tells those who are connected what is new, without waiting for it.
    fn tell(&self) {
        for node in self.others() {
            if self.0.peers.connected(node).is_some() {
                let mesh = self.clone();
                tokio::spawn(async move { mesh.sync(node).await });
            }
        }
    }

    async fn tell_and_wait(&self) {
        let records = self.0.roll.lock().records();
        let told = async {
            for node in self.others() {
                let Some(connection) = self.0.peers.connected(node) else { continue };
                let ask = Ask::Roll { digest: [0; 32], records: Some(Box::new(records.clone())) };
                let Ok((mut send, mut receive)) = connection.open_bi().await else { continue };
                let program = &self.0.options.program;
                let _: Result<Option<Records>, _> = wire::ask(&mut send, &mut receive, program, &ask).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(3), told).await;
    }

    fn others(&self) -> BTreeSet<NodeId> {
        self.0.roll.lock().members().map(|(node, _)| node).filter(|node| *node != self.0.me).collect()
    }

    /// Changes the roll, and writes it down before it counts.
    fn change<T>(&self, change: impl FnOnce(&mut Roll) -> Result<T, Error>) -> Result<T, Error> {
        let mut roll = self.0.roll.lock();
        let mut changed = roll.clone();
        let done = change(&mut changed)?;
        if changed.digest() != roll.digest() {
            self.0.folder.save(ROLL, &changed.records())?;
            *roll = changed;
        }
        Ok(done)
    }

    /// Does what follows from who belongs to the mesh.
    pub(crate) async fn apply(&self) {
        let others = self.others();
        for (_, contact) in self.0.roll.lock().members() {
            contact.into_iter().for_each(|contact| self.0.peers.learn(contact));
        }
        self.0.peers.keep_only(&others);
        self.0.pulse.set_members(others).await;
    }

    /// Says where this node is, if that is new. Whether it was.
    fn announce(&self) -> Result<bool, Error> {
        let Options { key, name, program, listen, .. } = &self.0.options;
        let addresses: Vec<SocketAddr> =
            self.0.peers.addresses().into_iter().take(Contact::MOST_ADDRESSES).collect();
        self.change(|roll| {
            let former =
                roll.members().find(|(node, _)| *node == self.0.me).and_then(|(_, contact)| contact.cloned());
            let is_new = former.is_none_or(|former| {
                former.addresses() != addresses
                    || former.name() != name
                    || former.program() != program
                    || former.relay() != listen.relay.as_deref()
            });
            if is_new {
                let version = unix().as_millis() as u64;
                let (mesh, name) = (roll.mesh(), name.clone());
                let contact =
                    Contact::sign(key, mesh, version, name, program, &addresses, listen.relay.as_deref())?;
                roll.announce(contact);
            }
            Ok(is_new)
        })
    }

    /// Sends a datagram where there is a connection; where there is none, one is made for the next.
    fn send_datagram(&self, to: NodeId, bytes: Bytes) {
        if let Some(connection) = self.0.peers.connected(to) {
            let _ = connection.send_datagram(bytes);
            return;
        }
        let mesh = self.clone();
        tokio::spawn(async move {
            match mesh.sync(to).await {
                Ok(()) => {
                    let connection = mesh.0.peers.connected(to);
                    connection.map(|connection| connection.send_datagram(bytes));
                }
                Err(error) => tracing::debug!(node = %to, "{error}"),
            }
        });
    }

    /// Ends this node's part until it is opened again.
    pub async fn close(&self) {
        self.0.peers.close().await;
    }
}

async fn ask_to_join(peers: &Peers, options: &Options, ticket: &Ticket) -> Result<Records, Error> {
    let (connection, _) = peers.connect(ticket.host).await?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(Error::cut)?;
    let ask = Ask::Join { secret: ticket.secret };
    wire::ask(&mut send, &mut receive, &options.program, &ask).await
}

/// Now and then: other addresses, and what one of the others knows that this node has not heard.
async fn rounds(mesh: std::sync::Weak<Inner>) {
    let mut round = tokio::time::interval(ROUND);
    for turn in 0_usize.. {
        round.tick().await;
        let Some(mesh) = mesh.upgrade().map(Mesh) else { return };
        match mesh.announce() {
            Ok(true) => mesh.tell(),
            Ok(false) => {}
            Err(error) => tracing::warn!("where this node is cannot be said: {error}"),
        }
        let connected: Vec<NodeId> =
            mesh.others().into_iter().filter(|node| mesh.0.peers.connected(*node).is_some()).collect();
        if let Some(node) = connected.get(turn % connected.len().max(1))
            && let Err(error) = mesh.sync(*node).await
        {
            tracing::debug!(%node, "{error}");
        }
    }
}
