//! A machine's screen, for eyes that are elsewhere.
//!
//! ```text
//!  QEMU ──→ Display ──→ Picture ──→ Grid: 64-pixel blocks, each row of each with its hash
//!                                    │
//!             Viewer: what a viewer shows, row by row ──→ Plan: what it is sent next
//!                                    │
//!             Studio: a plan's pixels as two atlases, encoded once for all who need the same ──→ bytes (docs/SCREEN.md)
//! ```
//!
//! A viewer is never sent a change, but what it takes from what it shows to what is there now: who falls behind skips what was
//! in between, and nothing waits in a queue. What is sent is decided without I/O and without a clock ([`Viewer`]).

mod atlas;
pub mod clipboard;
mod display;
mod grid;
mod keys;
mod message;
mod picture;
mod plan;
mod scroll;
mod thumbnail;
mod typing;
mod viewer;

pub use atlas::{EncodeError, Prepared, Studio};
pub use display::{Display, DisplayError, Screen};
pub use grid::{At, BLOCK, Grid};
pub use keys::qnum;
pub use picture::{LARGEST, Picture, Rect};
pub use plan::{Op, Plan};
pub use thumbnail::thumbnail;
pub use typing::{CannotType, Layout, PACE, Stroke, layouts, strokes};
pub use viewer::{SLOTS, Viewer};
