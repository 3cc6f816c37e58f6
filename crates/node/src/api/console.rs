//! Serial consoles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_keeper::record::Phase;

/// What is said about a machine's serial console between its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConsoleNews {
    /// The next binary message is what was printed last, at most 64 KiB and maybe nothing, and all others continue it. Said at first,
    /// and again to who takes what is printed too slowly to be told all of it.
    Begin {
        /// How many bytes this one is not told, of those printed since it came.
        skipped: u64,
    },
    /// How things are. Said at first, and when it changes; then after all that was printed before.
    State(ConsoleState),
}

/// How things are with a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleState {
    /// What the machine is doing.
    #[schema(value_type = String)]
    pub phase: Phase,
    /// Why, where that is worth saying.
    pub reason: String,
    /// Whether a run of the machine is at the other end of the line.
    pub connected: bool,
}
