//! Disks served over NBD on a unix socket.
//!
//! After the [NBD protocol](https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md): fixed
//! newstyle negotiation, simple and structured replies, the `base:allocation` context. Parsing and answering
//! (`wire`, `negotiation`, `session`) know no sockets; `connection` and `server` do.
//!
//! A client may have 8 requests in flight per connection (more wait in the socket) of at most 32 MiB each; of
//! those that wait for nothing from elsewhere at most 2 MiB together or a single one, of the others 64 MiB; 32 connections
//! at a time. Limits are checked before memory is taken, and a write's payload
//! takes memory as it arrives, at most 256 KiB ahead.

mod connection;
mod export;
mod gather;
mod negotiation;
mod server;
mod session;
mod turn;
mod wire;

pub use export::{Export, ReadOnly};
pub use server::{Exports, Server};
