//! Guest disks: every write goes through here on its way to a raw file, and leaves a mark that says which
//! pages the next snapshot has to take.
//!
//! ```text
//!   QEMU ── NBD ──▶ change ──▶ raw file        scan, seal ──▶ which pages
//!                     │  ▲                     Sealed::read ──▶ their content at the seal
//!               marks │  │ absent pages
//!                     ▼  │
//!                  map   source ──▶ hydrate ──▶ raw file
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
//! already, and must not be taken for what the last snapshot has. The one gap: such a first mark does not
//! outlive a seal *and* the publishing of it while the write is still in flight.
//!
//! # What is promised
//! - When a write, zeroing or trim was acknowledged, its content and its mark survive the death of the
//!   process at any moment.
//! - A flush, and a write with FUA, is acknowledged when the medium has it (except as
//!   [`DeferredFlushes`] says).
//! - No promise yet about the *marks* after a loss of power: the map is not synced. Content that was flushed
//!   is there, but which pages are in no snapshot may be forgotten, and so may which are present: after a loss
//!   of power, restore from a snapshot.

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
mod map;
mod mapped;
pub mod nbd;
mod raw;
mod seal;
mod source;
mod written;

pub use change::Zeroes;
pub use disk::Disk;
pub use error::Error;
pub use extents::Extent;
pub use flush::DeferredFlushes;
pub use hydrate::Hydration;
pub use seal::Sealed;
pub use source::Source;
