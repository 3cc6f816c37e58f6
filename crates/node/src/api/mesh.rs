//! Other nodes, as the API tells of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_types::{Generation, MachineId, MachineName, NodeId};

/// A ticket that is wanted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct InviteRequest {
    /// For how many seconds it is valid; without it an hour.
    #[serde(default)]
    pub valid_s: Option<u64>,
}

/// What lets one node into the mesh, once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The ticket. Whoever has it can join.
    pub ticket: String,
    /// Until when it is valid, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// A mesh to be joined.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinRequest {
    /// A ticket that one of its nodes made.
    pub ticket: String,
}

/// A node to be taken out of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RemoveNodeRequest {
    /// Its name, or the beginning of its id.
    pub node: String,
}

/// What became of leaving the mesh.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// Whether another node was there to be told. If none was, the others go on expecting this one until they take it out.
    pub told: bool,
}

/// The mesh, as this node knows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// Its nodes; this one alone if it is in none.
    pub nodes: Vec<MeshNode>,
}

/// A node of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MeshNode {
    /// Its key.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// What it calls itself; empty if it has not said so yet.
    pub name: String,
    /// The way to it that is used, or where it says it is.
    pub addr: String,
    /// `here`, `alive`, `suspect`, `down`, or `unknown` before it was heard of.
    pub state: String,
    /// How long it takes to it and back, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The version of Watari that it runs.
    pub version: String,
    /// What it has; nothing if it does not say.
    pub machines: Option<Vec<HeldMachine>>,
    /// Bytes of its store.
    pub store_bytes: Option<u64>,
}

/// A machine that a node has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeldMachine {
    /// Its id.
    #[schema(value_type = String)]
    pub id: MachineId,
    /// What it is called there.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// What it does there; `held` where only snapshots of it are.
    pub state: String,
    /// The newest snapshot of it there.
    #[schema(value_type = Option<u64>)]
    pub generation: Option<Generation>,
}
