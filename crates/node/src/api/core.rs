//! Cores.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_types::SnapshotId;

/// Where a core is to be written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CoreRequest {
    /// The file, as an absolute path: the daemon has a working folder of its own.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Whether it may replace a file that is there.
    #[serde(default)]
    pub force: bool,
}

/// A core that was written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CoreInfo {
    /// The file.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// The snapshot.
    #[schema(value_type = String)]
    pub snapshot: SnapshotId,
    /// The file's size.
    pub bytes: u64,
    /// What it takes on its file system: pages that are zero take nothing.
    pub allocated_bytes: u64,
}
