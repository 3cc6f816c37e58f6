//! Connections to other nodes: one to each that is spoken with, by its key, whatever its address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iroh::address_lookup::memory::MemoryLookup;
use iroh::endpoint::{Connection, QuicTransportConfig, VarInt, presets};
use iroh::tls::{CaTlsConfig, default_provider};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, RelayUrl, SecretKey, TransportAddr};
use parking_lot::Mutex;
use watari_store::NodeKey;
use watari_types::NodeId;

use crate::Error;
use crate::congestion::Fresh;
use crate::roll::Contact;
use crate::wire::ALPN;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come from it.
const SILENCE: Duration = Duration::from_secs(20);
/// How often something goes out where there is nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What may be on its way over one stream. The receiver gives a connection up whose streams have more than a thousand gaps, and
/// a stream of this length cannot have more, however much of it is lost.
const STREAM_WINDOW: u32 = 2 << 20;
/// What may be on its way in all: 1 Gbit/s over 150 ms is 19 MB.
const WINDOW: u32 = 48 << 20;
/// What is sent at first, before it is known what the line takes: 32 packets, as browsers do. From there it doubles with each round
/// trip.
const FIRST_WINDOW: u64 = 32 * 1200;

/// How a node is reached.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// Where it listens; on all its addresses, and a port that is free, if that is empty.
    pub addresses: Vec<SocketAddr>,
    /// A relay that helps where there is no direct way, by its URL.
    pub relay: Option<String>,
}

/// The node's end of all its connections.
pub(crate) struct Peers {
    endpoint: Endpoint,
    /// Where others are, as far as they have said so.
    book: MemoryLookup,
    open: Mutex<BTreeMap<NodeId, Connection>>,
    /// Held while a node is called, so that it is called once.
    dialling: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
}

fn public(node: NodeId) -> Result<PublicKey, Error> {
    PublicKey::from_bytes(&node.0).map_err(|_| Error::NoKey(node))
}

pub(crate) fn node_of(connection: &Connection) -> NodeId {
    NodeId(*connection.remote_id().as_bytes())
}

fn parse_relay(url: &str) -> Result<RelayUrl, Error> {
    url.parse().map_err(|_| Error::BadRelay(url.to_owned()))
}

/// Who may certify a relay: whom this computer trusts, since a relay of one's own may be certified by an authority of one's own.
/// A computer that trusts nobody can be in a mesh, too: there, whom browsers trust.
fn authorities() -> CaTlsConfig {
    let system = CaTlsConfig::system();
    match system.server_cert_verifier(default_provider()) {
        Ok(_) => system,
        Err(error) => {
            tracing::info!("this computer trusts no authority: {error}");
            CaTlsConfig::embedded()
        }
    }
}

impl Peers {
    /// Begins to listen.
    ///
    /// # Errors
    /// The addresses cannot be had, or the relay's is none.
    pub(crate) async fn listen(key: &NodeKey, listen: &Listen) -> Result<Peers, Error> {
        let transport = QuicTransportConfig::builder()
            .congestion_controller_factory(Arc::new(Fresh::new(FIRST_WINDOW)))
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(WINDOW.into())
            .send_window(u64::from(WINDOW))
            .keep_alive_interval(KEEP_ALIVE)
            .max_idle_timeout(SILENCE.try_into().ok())
            .build();
        // Without one of its own it calls others at theirs.
        let relay = RelayMode::custom(listen.relay.as_deref().map(parse_relay).transpose()?);
        let book = MemoryLookup::new();
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&key.seed()))
            .alpns(vec![ALPN.to_vec()])
            .transport_config(transport)
            .ca_tls_config(authorities())
            .address_lookup(book.clone())
            .relay_mode(relay);
        if !listen.addresses.is_empty() {
            builder = builder.clear_ip_transports();
            for address in &listen.addresses {
                builder = builder.bind_addr(*address).map_err(|e| Error::Listen(e.into()))?;
            }
        }
        let endpoint = builder.bind().await.map_err(|e| Error::Listen(e.into()))?;
        Ok(Peers { endpoint, book, open: Mutex::default(), dialling: Mutex::default() })
    }

    /// Where it listens.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// Where others reach it directly, as far as is known.
    pub(crate) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.endpoint.addr().ip_addrs().copied().collect()
    }

    /// Waits for the next connection from elsewhere. `None` once it is closed.
    pub(crate) async fn accept(&self) -> Option<iroh::endpoint::Incoming> {
        self.endpoint.accept().await
    }

    /// Notes how a node is reached.
    pub(crate) fn learn(&self, contact: &Contact) {
        self.learn_addresses(contact.node(), contact.addresses(), contact.relay());
    }

    /// Notes where a node is.
    pub(crate) fn learn_addresses(&self, node: NodeId, addresses: &[SocketAddr], relay: Option<&str>) {
        let Ok(key) = public(node) else { return };
        let relay = relay.and_then(|url| parse_relay(url).ok()).map(TransportAddr::Relay);
        let addresses = addresses.iter().copied().map(TransportAddr::Ip).chain(relay);
        self.book.set_endpoint_info(EndpointAddr::from_parts(key, addresses));
    }

    /// The connection to a node, if there is one.
    pub(crate) fn connected(&self, node: NodeId) -> Option<Connection> {
        let open = self.open.lock();
        open.get(&node).filter(|connection| connection.close_reason().is_none()).cloned()
    }

    /// A connection to a node, and whether it is new.
    ///
    /// # Errors
    /// [`Error::Unreachable`]
    pub(crate) async fn connect(&self, node: NodeId) -> Result<(Connection, bool), Error> {
        let dialling = Arc::clone(self.dialling.lock().entry(node).or_default());
        let _once = dialling.lock().await;
        if let Some(connection) = self.connected(node) {
            return Ok((connection, false));
        }
        let connection = self.dial(EndpointAddr::new(public(node)?)).await?;
        self.opened(&connection);
        Ok((connection, true))
    }

    async fn dial(&self, address: EndpointAddr) -> Result<Connection, Error> {
        let node = NodeId(*address.id.as_bytes());
        let failed = |why: String| Error::Unreachable { node, why };
        match tokio::time::timeout(PATIENCE, self.endpoint.connect(address, ALPN)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// A connection is there: it is used from now on.
    pub(crate) fn opened(&self, connection: &Connection) {
        self.open.lock().insert(node_of(connection), connection.clone());
    }

    /// How long it takes to a node and back, on the way that is used.
    pub(crate) fn round_trip(&self, node: NodeId) -> Option<(Duration, String)> {
        let connection = self.connected(node)?;
        let paths = connection.paths();
        let path = paths.iter().find(|path| path.is_selected())?;
        let address = match path.remote_addr() {
            TransportAddr::Ip(address) => address.to_string(),
            TransportAddr::Relay(url) => format!("through {url}"),
            other => format!("{other:?}"),
        };
        Some((path.rtt(), address))
    }

    /// Ends the connections to nodes that are not among these.
    pub(crate) fn keep_only(&self, members: &BTreeSet<NodeId>) {
        self.open.lock().retain(|node, connection| {
            let stays = members.contains(node);
            if !stays {
                connection.close(VarInt::from_u32(1), b"not a member");
            }
            stays
        });
    }

    /// Ends all.
    pub(crate) async fn close(&self) {
        self.endpoint.close().await;
    }
}
