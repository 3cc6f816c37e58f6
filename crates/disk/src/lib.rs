//! Guest disks: every write goes through here on its way to a raw file, and leaves a mark that says which
//! pages the next snapshot has to take.
//!
//! ```text
//!   QEMU ── NBD ──▶ change ──▶ raw file        scan, seal ──▶ which pages
//!                     │  ▲                     Sealed::read ──▶ their content at the seal
//!               marks │  │ absent pages
//!                     ▼  │
//!           map, ledger  source ──▶ hydrate ──▶ raw file
//! ```
//!
//! # Why a snapshot is right although nothing stops
//! A write marks its pages *after* it reached the file and *before* it is acknowledged. A scan takes marks
//! away first and the pages are read afterwards, so whatever it took a mark for is in the file by then, and
//! what reaches the file later is marked again later. A seal happens at one instant: writes acknowledged
//! before have left their marks, and writes begun after it see that their pages are sealed and put the old
//! content aside. A write in flight at that instant may be in the snapshot or not, page by page; nobody was
//! told yet that it happened, and the same holds for a real disk that loses power.
//!
//! Pages are also marked *before* a write: if the process is killed in the middle, the page may be new
//! already, and must not be taken for what the last snapshot has. So publishing takes no marks away where a
//! change is at work.
//!
//! # What is promised
//! - When a write, zeroing or trim was acknowledged, its content and its mark survive the death of the
//!   process at any moment.
//! - A flush, and a write with FUA, is acknowledged when the medium has it (except as
//!   [`DeferredFlushes`] says).
//! - After a loss of power at any moment every sector has what it had at the last flush, or something it was given
//!   later; and every page that differs from the newest published snapshot is pending, with at most the rest of its
//!   region (1 MiB, or a 4096th of the disk). Nothing has to be scanned for that: the ledger knows.
//!   `power` cuts at every write and sync.
//!
//! Of the medium that assumes: a sync means what it says, and a sector of 512 bytes is old or new, never mixed. It is
//! *not* promised that unflushed writes survive in their order, that a page is not half old and half new where it was
//! not flushed, or anything of a medium that failed a sync (the guest is told, and what was written since the one
//! before may be lost) or that returns something else than it was given.

mod at_work;
mod bits;
mod change;
mod disk;
mod engine;
mod error;
mod extents;
mod flush;
mod guards;
mod hydrate;
pub mod image;
mod ledger;
mod map;
mod mapped;
mod medium;
pub mod nbd;
#[cfg(test)]
mod power;
mod raw;
mod regions;
mod remains;
mod seal;
mod source;
mod summary;
mod written;

pub use change::Zeroes;
pub use disk::Disk;
pub use error::Error;
pub use extents::Extent;
pub use flush::DeferredFlushes;
pub use hydrate::Hydration;
pub use remains::Remains;
pub use seal::Sealed;
pub use source::{Base, Source};
