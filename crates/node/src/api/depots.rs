//! What goes to depots and comes from them, as the API tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_types::{Generation, MachineId, MachineName, NodeId, SnapshotId};

/// A depot, and what it takes to use it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct DepotRequest {
    /// A folder or a file, as an absolute path, or `s3://BUCKET/PREFIX`.
    pub address: String,
    /// A node of the mesh. If there is one of this name, or whose id begins so, it is meant.
    #[serde(default)]
    pub node: Option<String>,
    /// What it is encrypted with, or to be: a passphrase,
    #[serde(default)]
    pub passphrase: Option<String>,
    /// or the content of a file of age identities.
    #[serde(default)]
    pub identity: Option<String>,
    /// How to reach the service: variables by the names that Amazon's own programs read, `AWS_ACCESS_KEY_ID` and so on.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// A snapshot to be put into a depot.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PushRequest {
    /// Which.
    pub rev: String,
    /// Where.
    pub depot: DepotRequest,
    /// To a node, at most so many bytes a second.
    #[serde(default)]
    pub limit_bytes_s: Option<u64>,
}

/// A snapshot that is in a depot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pushed {
    /// The name its machine had.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Where it is.
    pub depot: String,
    /// Pages that were not there before.
    pub pages_sent: u64,
    /// What was written there.
    pub bytes_sent: u64,
}

/// Snapshots to be taken from a depot.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PullRequest {
    /// From where.
    pub depot: DepotRequest,
    /// Which; without it all of one machine.
    #[serde(default)]
    pub rev: Option<String>,
    /// What the machine is to be called here, or which of several in the depot is meant.
    #[serde(default)]
    pub name: Option<String>,
}

/// What was taken from a depot.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pulled {
    /// The machine's name here.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: MachineId,
    /// Whether it was not here before.
    pub is_new: bool,
    /// The newest of the snapshots.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// Its id.
    #[schema(value_type = String)]
    pub snapshot: SnapshotId,
    /// How many snapshots there were.
    pub snapshots: u64,
    /// Pages that were not here before.
    pub pages_received: u64,
    /// What was written here.
    pub bytes_written: u64,
    /// The nodes that made the snapshots and are not trusted here; their machines do not run.
    #[schema(value_type = Vec<String>)]
    pub untrusted: Vec<NodeId>,
}

/// A node whose snapshots may run here, or may no longer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustRequest {
    /// Its id.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Whether trust ends.
    #[serde(default)]
    pub remove: bool,
}

/// The nodes whose snapshots may run here, besides this one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustList {
    /// Their ids.
    #[schema(value_type = Vec<String>)]
    pub trusted: Vec<NodeId>,
}
