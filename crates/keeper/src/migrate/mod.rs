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

//! Or the guest goes first ([`lend`], [`borrow`]), and where it is now takes what it needs from where it was:
//!
//! ```text
//!  lend: the guest runs                             borrow
//!     ├─ Lent, boot files, Owed … Round ───────────────► ├─ disks made, of pages that are somewhere; QEMU started
//!     │                         ◄──────── Ready ──────── │
//!     ├─ what is not main memory … Round ──────────────► │
//!     │                         ◄──────── Taken ──────── │
//!  hold
//!     └─ Owed, what was written last, Devices ─────────► └─ devices loaded, guest held
//!  lender       ◄── Want ── whenever a page is touched ──── the guest runs
//!     └──────────── Pages ────────────────────────────────►
//! ```
//! Meanwhile the one that is held there is captured, and the snapshot sent from store to store. Once it is here, nothing is lent
//! any more ([`Lent`]).

mod borrow;
mod frame;
mod incoming;
mod lend;
mod lent;
mod outgoing;

pub(crate) use borrow::Debt;
pub use borrow::Loan;
pub(crate) use incoming::receive;
pub(crate) use lend::{Lender, lend};
pub(crate) use outgoing::migrate;

pub(crate) fn cut(source: std::io::Error) -> crate::Error {
    crate::Error::Migration { source }
}
