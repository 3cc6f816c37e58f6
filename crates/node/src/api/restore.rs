//! Going back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_keeper::record::Point;
use watari_types::{Generation, SnapshotId};

use super::Ready;

/// A snapshot to go back to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RestoreRequest {
    /// Which; it must be in the machine's history.
    pub rev: String,
    /// Whether what the machine leaves behind is lost. Otherwise it is kept as a snapshot.
    #[serde(default)]
    pub discard: bool,
}

/// A machine that went back to a snapshot, and runs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// The machine, and how long it took, what it left behind being kept included.
    #[serde(flatten)]
    pub ready: Ready,
    /// The snapshot of what it left behind; `null` if there was nothing to keep, or it was to be discarded.
    pub kept: Option<Kept>,
}

/// A snapshot of what a machine left behind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Kept {
    /// Its name.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// Its number in the machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
}

impl From<Point> for Kept {
    fn from(Point { generation, id }: Point) -> Kept {
        Kept { id, generation }
    }
}
