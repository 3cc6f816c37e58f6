//! Depots: places that deltas can be pushed to and pulled from.
//!
//! A depot is a store (`watari-store`) in a folder, in one file, or in an S3 bucket, and optionally under encryption:
//!
//! ```text
//!   Store ──▶ Sealed ──▶ Folder │ Archive │ Bucket                        a bucket's indexes are
//!     └────────────────▶ Archive │ Bucket │ a folder, as every store      remembered nearby
//! ```
//!
//! What stands where, and what it gives away, is in `docs/FORMAT.md` and `docs/SECURITY.md`.

mod address;
mod archive;
mod bucket;
mod error;
mod folder;
mod open;
mod remembering;
mod sealed;
mod short;

pub use address::Address;
pub use error::Error;
pub use open::{Access, Depot, open};
pub use sealed::Secret;
