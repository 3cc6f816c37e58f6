//! The keeper: one process that owns one running machine, captures it while it runs, and brings it back.
//!
//! ```text
//!              daemon ── start line, socket (protocol) ──┐
//!                                                        ▼
//!   disks ──► disk server ──NBD──► QEMU ◄──QMP──────  Instance ──► capture ──► store
//!     ▲                             │ RAM, devices       ▲
//!     └── lazily, from the store    └── which pages? ────┘ (ram)
//! ```
//!
//! * [`home`] and [`record`]: what lies where, and what is written down; [`lock`]: who may touch it;
//! * [`protocol`] and [`client`]: how the daemon speaks to a keeper;
//! * `start`: power on, resume, or take over a QEMU whose keeper died;
//! * `arrival`: memory that is filled while its guest runs already;
//! * `capture`: a snapshot while the guest runs;
//! * `migrate`: what is written while a machine goes to another keeper, or what it holds after it has gone;
//! * `hands`: the keyboard and the pointer, of which nothing is lost;
//! * `rewind`: a run is given up for a restore, which goes on with its memory;
//! * [`heads`]: memory that clones share.
//!
//! A keeper lives as long as its machine. When it is killed, QEMU lives on: its guest waits for the disk server
//! to return, and the next keeper [adopts](protocol::Start::Adopt) it.

mod arrival;
mod capture;
pub mod client;
pub mod costs;
mod dump;
mod error;
mod gather;
mod ground;
mod hands;
pub mod heads;
mod history;
pub mod home;
mod instance;
pub mod lock;
mod memory;
mod migrate;
mod process;
pub mod protocol;
mod ram;
pub mod record;
mod rewind;
mod run;
mod screen;
mod server;
mod settings;
mod staging;
mod start;
mod status;
mod unkept;

pub use dump::write_core;
pub use error::{Error, not_kept};
pub use history::StoreSource;
pub use migrate::Loan;
pub use process::{kill_if_same, process_started};
pub use rewind::memory_of;
pub use run::run;
pub use settings::{Settings, Tracker, WebSettings};
pub use unkept::has_unkept_disks;

/// What goes wrong here is an [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
