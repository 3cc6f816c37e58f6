//! Who may run a machine, while it goes from one node to another: exactly one, whatever is lost or dies on the way.
//!
//! ```text
//!   source                                        destination
//!   Mine(e)                                       Elsewhere
//!     │ Prepare(e+1) ──────────────────────────────► can it? memory, QEMU, room
//!     │ ◄────────────────────────────────────────── Ready(e+1), or Refuse(e+1) and why
//!     │   … what it has is brought there, the guest runs on …
//!     │ the guest is held
//!   Offering(e+1)  written down
//!     │ Commit(e+1), with the rest ────────────────► loads it
//!     │                                             Mine(e+1)  written down; the guest goes on
//!     │ ◄────────────────────────────────────────── Running(e+1)
//!   Elsewhere(e+1) written down; the guest that is held here is ended
//! ```
//! Until `Offering` is written down a cut, a refusal or a death changes nothing: the guest goes on, or goes on running, where it
//! is. From then on the source is *in doubt*: it does not let its guest go on before the destination has said what became of
//! it, and asks until it does. A destination that is asked and has not taken the machine writes down that it never will, at
//! this epoch, before it says so; a `Commit` that comes after that is refused. So exactly one of the two goes on.
//!
//! Should the destination not come back, a person may decide: [`Tenure::take_back`] gives the machine an epoch beyond the one
//! that was offered. If the other one took it after all, it hears of the later epoch when the two meet again, and gives way:
//! its guest is held, and kept. That is the only way in which two can run, and it takes a person who says that only one does.
//!
//! [`Tenure`] decides and does nothing; what is to be done comes out as [`Action`]s, each to be completed before the next.

mod call;
#[cfg(test)]
mod simulation;
mod tenure;

pub use call::{Arriving, Call, Footing, Reply, Visitor};
pub use tenure::{Action, Guest, Message, Record, Standing, Tenure};
