//! This node among others: which mesh it is in, who is there, what each has.
//!
//! A node is in no mesh, and listens nowhere but on its own socket and on loopback, until somebody invites another or joins.

mod exchange;
mod hosting;
mod visiting;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use watari_mesh::ticket::Ticket;
use watari_mesh::{Listen, Mesh, NodeInfo, Options, Presence};
use watari_store::NodeKey;
use watari_types::{NodeId, NodeName};

use crate::api::{
    HeldMachine, Invitation, InviteRequest, JoinRequest, Left, MeshNode, NodeList, RemoveNodeRequest,
};
use crate::node::{Node, OnProgress, hold};
use crate::{Error, Result};

use hosting::Hosting;

pub(crate) use exchange::sending;
pub(crate) use visiting::{Visit, Visitor};

/// How long a ticket is valid if nobody says otherwise.
const VALID: Duration = Duration::from_secs(3600);
/// And at most.
const MOST_VALID: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a node may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(3);

impl Node {
    /// Goes on in the mesh that this node belongs to. A node that cannot is in none until the daemon starts again, and says
    /// so; its machines are not kept from running.
    pub(crate) async fn open_mesh(self: &Arc<Self>) {
        let opened = match self.mesh_options() {
            Ok(options) => Mesh::open(options, Hosting::of(self)).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        match opened {
            Ok(mesh) => *hold(&self.mesh) = mesh,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "this node is not in its mesh")
            }
        }
    }

    fn mesh_options(&self) -> Result<Options> {
        let settings = watari_keeper::Settings::load(&self.home)?.mesh;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Options {
            key: NodeKey::load_or_create(&self.home.node_key())?,
            folder: self.home.node_file("mesh"),
            name: settings.name.unwrap_or_else(|| NodeName::from_host(&host)),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            listen: Listen { addresses: settings.listen, relay: settings.relay },
        })
    }

    /// The mesh, if this node is in one.
    pub(crate) fn in_mesh(&self) -> Option<Mesh> {
        hold(&self.mesh).clone()
    }

    pub(crate) fn mesh(&self) -> Result<Mesh> {
        self.in_mesh().ok_or(Error::NoMesh)
    }

    /// A ticket. A node that is in no mesh begins one.
    pub(crate) fn invite(self: &Arc<Self>, request: InviteRequest) -> Result<Invitation> {
        let valid = request.valid_s.map_or(VALID, Duration::from_secs);
        if valid.is_zero() || valid > MOST_VALID {
            return Err(Error::BadRequest(
                "a ticket is valid for a second at least and 30 days at most".to_owned(),
            ));
        }
        let _alone = hold(&self.joining);
        let mesh = match self.in_mesh() {
            Some(mesh) => mesh,
            None => {
                let found = Mesh::found(self.mesh_options()?, Hosting::of(self));
                let mesh = Handle::current().block_on(found)?;
                *hold(&self.mesh) = Some(mesh.clone());
                mesh
            }
        };
        let ticket = mesh.invite(valid)?;
        Ok(Invitation { ticket: ticket.to_string(), expires_unix_s: ticket.expires_unix_s })
    }

    /// Joins somebody's mesh.
    pub(crate) fn join(self: &Arc<Self>, request: &JoinRequest, progress: OnProgress) -> Result<NodeList> {
        let ticket: Ticket =
            request.ticket.parse().map_err(|e| watari_mesh::Error::Ticket(format!("{e}")))?;
        {
            let _alone = hold(&self.joining);
            if let Some(mesh) = self.in_mesh() {
                if mesh.nodes().len() > 1 {
                    return Err(Error::InMesh);
                }
                // One that was begun here and that nobody has joined.
                Handle::current().block_on(mesh.leave())?;
                *hold(&self.mesh) = None;
            }
            let join = Mesh::join(self.mesh_options()?, &ticket, Hosting::of(self));
            *hold(&self.mesh) = Some(Handle::current().block_on(join)?);
        }
        // A machine may come any time now, and is not to wait for this. A node that only keeps snapshots needs no QEMU.
        let found = self.qemu().and_then(|qemu| self.ensure_accelerator(&qemu, progress));
        if let Err(error) = found {
            tracing::warn!("no machine can come: {}", error.report());
        }
        self.nodes()
    }

    /// Takes a node out of the mesh.
    pub(crate) fn remove_node(&self, request: &RemoveNodeRequest) -> Result<NodeList> {
        let mesh = self.mesh()?;
        let node = mesh.find(&request.node)?;
        Handle::current().block_on(mesh.remove(node))?;
        self.nodes()
    }

    /// Leaves the mesh.
    pub(crate) fn leave_mesh(&self) -> Result<Left> {
        let _alone = hold(&self.joining);
        let told = Handle::current().block_on(self.mesh()?.leave())?;
        *hold(&self.mesh) = None;
        Ok(Left { told })
    }

    /// The nodes of the mesh and what each has; this node alone if it is in none.
    pub(crate) fn nodes(&self) -> Result<NodeList> {
        let Some(mesh) = self.in_mesh() else {
            let options = self.mesh_options()?;
            let alone = NodeInfo {
                id: self.id,
                name: Some(options.name),
                program: options.program,
                address: String::new(),
                presence: Presence::Here,
                round_trip: None,
            };
            return Ok(NodeList { nodes: vec![describe(alone, Some(self.holdings()?))] });
        };
        let ask = mesh.nodes().into_iter().map(|info| {
            let mesh = mesh.clone();
            async move {
                let is_there = matches!(info.presence, Presence::Here | Presence::Alive | Presence::Suspect);
                let holdings = match is_there {
                    true => {
                        tokio::time::timeout(PATIENCE, mesh.holdings(info.id)).await.ok().and_then(|h| h.ok())
                    }
                    false => None,
                };
                describe(info, holdings)
            }
        });
        Ok(NodeList { nodes: Handle::current().block_on(futures_util::future::join_all(ask)) })
    }

    /// Whether a node is one of the mesh's.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.in_mesh().is_some_and(|mesh| mesh.is_member(node))
    }
}

fn describe(info: NodeInfo, holdings: Option<watari_mesh::Holdings>) -> MeshNode {
    let store_bytes = holdings.as_ref().map(|holdings| holdings.store_bytes);
    let machine = |machine: watari_mesh::HeldMachine| HeldMachine {
        id: machine.id,
        name: machine.name,
        state: machine.state,
        generation: machine.generation,
    };
    MeshNode {
        id: info.id,
        name: info.name.map(String::from).unwrap_or_default(),
        addr: info.address,
        state: match info.presence {
            Presence::Here => "here",
            Presence::Alive => "alive",
            Presence::Suspect => "suspect",
            Presence::Down => "down",
            Presence::Unknown => "unknown",
        }
        .to_owned(),
        rtt_ms: info.round_trip.map(|time| time.as_secs_f64() * 1e3),
        version: info.program,
        machines: holdings.map(|holdings| holdings.machines.into_iter().map(machine).collect()),
        store_bytes,
    }
}
