//! The daemon of one node: an HTTP API over the machines of a home.
//!
//! ```text
//!   watari (cli) ──HTTP, unix socket──┐                  ┌── keeper (a process for each running machine)
//!                                     ▼                  │
//!   browser ──HTTP, 127.0.0.1──► server ──► Node ──► supervise
//!                                            │ create, lifecycle, network, ending, branch, history, diff, remove, exports,
//!                                            │ gc, verify, depots, trust
//!                                            └──► store, machine.toml, state.json
//! ```
//!
//! The server is asynchronous and holds no state; [`Node`](node::Node) blocks and is called on threads that may.
//! Operations on one machine never overlap, and an operation that has begun is carried through even if its
//! client goes away. [`doctor`] tests the host and needs no daemon.

mod accel;
pub mod api;
mod branch;
mod consoles;
mod create;
mod depots;
mod diff;
pub mod doctor;
mod dump;
mod ending;
mod error;
mod exports;
mod gc;
mod history;
mod host;
mod leave;
mod lifecycle;
mod mesh;
mod network;
mod node;
mod process;
mod remove;
mod screens;
mod server;
mod supervise;
mod teleport;
mod trust;
mod verify;

pub use error::{Error, Result};
pub use node::Options;
pub use server::serve;
