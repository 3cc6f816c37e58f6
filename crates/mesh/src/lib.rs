//! Other nodes: who they are, how they are reached, and what goes from one to the other.
//!
//! | module | what flows through it |
//! | --- | --- |
//! | [`roll`] | who belongs to the mesh: keys that members have signed |
//! | [`ticket`], [`invitations`] | how one comes to belong to it |
//! | `pulse` | who of them is there |
//! | `peers`, `wire`, `server` | connections, what is asked over them, what is answered |
//! | `congestion` | how much of it is sent at once |
//! | [`exchange`] | a snapshot from one store into another's: what is not there yet |
//! | [`handover`] | who may run a machine that goes from one node to another |
//! | `mesh` | all of it together |

mod congestion;
mod error;
pub mod exchange;
mod folder;
pub mod handover;
pub mod invitations;
mod lanes;
mod mesh;
mod peers;
mod pulse;
pub mod roll;
mod server;
pub mod ticket;
mod way;
mod wire;

pub use error::Error;
pub use mesh::{Host, Mesh, NodeInfo, Options};
pub use peers::Listen;
pub use pulse::Presence;
pub use way::Way;
pub use wire::{HeldMachine, Holdings, PROTOCOL};
