//! Pages of another process's memory flow through here: which of them it wrote, and what they hold.
//!
//! ```text
//!   spawn ──► Born { child, uffd } ──► arm ──► Tracker ──scan──► PageSets ──► ProcessMemory::read_pages
//!             (a userfaultfd made      (write protection,
//!              at the exec stop)        or fingerprints)
//! ```
//!
//! The emulator takes no part in it after its birth. With write protection the kernel notes every write and
//! nobody ever waits; see `docs/decisions/0001-tracking-written-pages.md` for what was measured, and
//! [`Tracker`] for what is promised and what is not.

mod birth;
mod compare;
mod error;
mod faults;
mod holes;
mod live;
mod memory;
mod range;
mod self_test;
mod sys;
mod tracker;
mod write_protect;

pub use birth::{Born, RemoteFd, spawn};
pub use error::Error;
pub use faults::{Faults, can_watch};
pub use memory::ProcessMemory;
pub use range::{Backing, Range};
pub use self_test::self_test;
pub use tracker::{Tracker, TrackerChoice, TrackerKind, arm};
