//! Deltas at rest: pages in packs, snapshots in signed manifests, and refs that make them exist.
//!
//! ```text
//!   refs/<machine>/head ─┐
//!   refs/<machine>/snapshots/7 ──▶ snapshots/<id>.snap ──parent──▶ snapshots/<id>.snap ──▶ …
//!                                       │ page hashes                  │
//!                                       ▼                              ▼
//!                                  packs/<id>.pack, packs/<id>.pack, …
//! ```
//!
//! Whoever makes a snapshot goes against the arrows, so that nothing ever points to what is not there:
//! [`PackWriter::finish`], [`Store::publish`], [`Refs::add`], [`Refs::set_head`]. A crash in between leaves
//! garbage, never a snapshot that is not whole. Each step is durable when it returns.
//!
//! The bytes, the reasons, and what is assumed of the medium are in `docs/FORMAT.md`. Reading a page relies on
//! the checksum of its compressed frame; [`Store::verify`] hashes everything again.
//!
//! What is *not* guaranteed: anything against another process that removes files from the folder by itself;
//! that a writer's pages are shared with another writer's at the same moment (both may store a page, which
//! costs space only); that a signature comes from a node anyone trusts, which is for the caller to decide.

#[cfg(test)]
extern crate self as watari_store;

mod bytes;
mod collect;
mod compress;
mod elsewhere;
mod error;
mod files;
mod frames;
mod goods;
mod history;
mod index;
mod intake;
mod key;
mod layout;
mod lease;
mod locate;
mod manifest;
mod names;
mod pack;
mod packs;
#[cfg(test)]
mod power;
mod read_pages;
mod refs;
mod regions;
mod report;
mod snapshot;
mod store;
mod transfer;
mod trees;
mod verify;

pub use collect::{Collected, Collecting};
pub use elsewhere::{Files, ReadAt};
pub use error::Error;
pub use goods::{Goods, PageFrame};
pub use intake::Intake;
pub use key::NodeKey;
pub use lease::Lease;
pub use pack::{PackStats, PackWriter};
pub use refs::{Head, Refs, Survey};
pub use regions::Regions;
pub use snapshot::{Origin, PageCounts, Snapshot, SnapshotDraft};
pub use store::Store;
pub use transfer::{Parcel, SendProgress, Sent};
pub use verify::{Affected, Damage, Repaired, VerifyProgress, VerifyReport};
