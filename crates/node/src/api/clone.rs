//! Branching off.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Ready;

/// What becomes of a clone's network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneNetwork {
    /// Its cable is pulled.
    #[default]
    Unplugged,
    /// It is replaced by a card with a new address.
    Fresh,
    /// As it was, with the original's address.
    Same,
}

/// A clone to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CloneRequest {
    /// Of which snapshot.
    pub rev: String,
    /// The new machine's name, checked by the daemon.
    pub name: String,
    /// What becomes of its network card.
    #[serde(default)]
    pub network: CloneNetwork,
    /// Whether to run it at once.
    #[serde(default)]
    pub start: bool,
    /// Whether to hold it where the snapshot was taken, with a socket for a debugger.
    #[serde(default)]
    pub gdb: bool,
}

/// A clone that was made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Cloned {
    /// The new machine, and how long it took.
    #[serde(flatten)]
    pub ready: Ready,
    /// Where gdb attaches to it (`target remote PATH`), if it was to.
    #[schema(value_type = Option<String>)]
    pub gdb: Option<PathBuf>,
}
