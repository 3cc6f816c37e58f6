//! Machines that move to other nodes while they run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_types::{Epoch, Generation, MachineName, NodeId};

/// Where a machine is to go.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TeleportRequest {
    /// A node of the mesh, by its name or the beginning of its id.
    pub node: String,
    /// Whether it is to go on there before what it holds has come.
    #[serde(default)]
    pub lazy: bool,
}

/// A machine that runs on another node now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Teleported {
    /// Its name.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// Where it runs.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// The newest snapshot of it that stays here, too: but for a lazy move, the one that it went with.
    #[schema(value_type = Option<u64>)]
    pub generation: Option<Generation>,
    /// At which epoch it runs there.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// From when its guest was held until it was known to run there.
    pub downtime_ms: f64,
    /// All in all.
    pub total_ms: f64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// Pages that were not there.
    pub pages_sent: u64,
}

/// How a guest that is held is to go on.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResumeRequest {
    /// Whether a machine that was handed over to another node is to be taken back, because that one does not run it.
    pub here: bool,
}
