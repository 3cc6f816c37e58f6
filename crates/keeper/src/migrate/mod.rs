//! A machine that goes to another keeper while it runs. The two share a snapshot of it; what differs from that goes over a
//! socket, page by page, and never through a store.
//!
//! ```text
//!  outgoing: the guest runs                         incoming: QEMU waits, memory and disks are the snapshot's
//!     │                         ◄──────── Ready ──────── │
//!     ├─ what was written ─────── Pages … Round ───────► ├─ into its memory, its disks
//!     │                         ◄──────── Taken ──────── │
//!     └─ again, until a round does not get smaller
//!  hold
//!     └─ the rest ─────────────── Pages … Devices ─────► └─ disks flushed, devices loaded, guest held
//! ```
//!
//! Which of the two guests goes on is not decided here. Until somebody lets the other one go on, this one may: pages that were
//! sent are still in no snapshot for the keeper that sent them.

mod frame;
mod incoming;
mod outgoing;

pub(crate) use incoming::receive;
pub(crate) use outgoing::migrate;
