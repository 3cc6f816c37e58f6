//! A snapshot from one node's store into another's: what is not there yet, each page once, newest version only.
//!
//! ```text
//!   giver                                   taker
//!   Offer: which, and what it descends from ─►
//!                                           ◄─ Have: the nearest of these that is here
//!   Names: pages that changed since        ─►     up to 8 lists on their way,
//!                                           ◄─ Want: which of them           so that it does not matter
//!   Pages: in the frames they are stored in ─►                               how far away the other is
//!   Settle                                  ─►     all of them are in packs that count
//!                                           ◄─ Settled
//!   Names, Want, Pages: the same with pages that are kept as changes of others
//!   Settle, Settled, Manifest               ─►     everything is there: the snapshot is one of the machine's
//!                                           ◄─ Done
//! ```
//! Pages go on several streams beside the one for all else ([`Link`]): what is lost on one holds up none of the others, and the
//! reassembly of a single stream would not bear as many gaps as a fast and lossy line makes. So they may come in any order, and
//! later than a `Settle` that was said after them.
//!
//! Either side may say `Refuse` and why at any time, which ends it. [`Giving`] and [`Taking`] decide what comes next and do
//! nothing themselves: events in, actions out. Where it is cut, the taker keeps the whole frames that it has; the next time it
//! does not want them.

mod driver;
mod giving;
mod link;
mod message;
#[cfg(test)]
mod simulation;
mod taking;

pub use driver::{Given, Progress, Taken, give, take};
pub use giving::{GiveAction, Giving};
pub(crate) use link::Inlet;
pub use link::Link;
pub(crate) use link::Stream;
pub use message::{Answer, BadMessage, Message, Offer};
pub use taking::{TakeAction, Taking};

/// Names in one list: 128 KiB of them, for 16 MiB of pages. Few in tests, where there are to be many lists.
pub(crate) const NAMES_PER_LIST: u32 = if cfg!(test) { 8 } else { 4096 };
/// Names in the first list; each has twice as many as the one before. These fit into what a connection sends before it has heard
/// how much the line carries, so that pages go as soon as they are wanted, and find out about the line while they are at it.
pub(crate) const NAMES_AT_FIRST: u32 = if cfg!(test) { 2 } else { 512 };
/// Lists that may be unanswered. With the pages that follow them, enough for 1 Gbit/s over 150 ms several times.
pub(crate) const MOST_LISTS: usize = 8;

/// When so many pages were given that may not have come, these are settled before more are named: that is what a taker has to
/// keep in mind of an honest giver. 2 GiB of pages; few in tests.
pub(crate) const MOST_LOOSE: u32 = if cfg!(test) { 40 } else { 1 << 19 };

/// What the other side did that is against the rules above.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the other node does not keep to the protocol: {0}")]
pub struct Violation(pub(crate) &'static str);
