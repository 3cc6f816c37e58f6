//! A process that writes to its memory, as told, and the handle its tests hold it by.
//!
//! The test binary starts *itself* as that process: each test file that uses this module has a test called
//! `load_process`, which does nothing unless it was started that way.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, unreachable_pub)]

mod area;
mod client;
mod server;
mod storm;

pub use client::Load;
pub use server::serve_if_asked;

/// What the memory of an area is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Anonymous,
    SharedMemfd,
    /// A private mapping of a memfd in which every byte of page `n` is `n % 251`.
    PrivateMemfd,
    /// A private mapping of a memfd in which there is nothing.
    SparseMemfd,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Anonymous, Kind::SharedMemfd, Kind::PrivateMemfd, Kind::SparseMemfd];

    fn from_name(name: &str) -> Kind {
        Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name).unwrap()
    }
}

/// Whether this host can track by write protection; says so if not. That it is not mistaken is for
/// `write_protect_tracking_works_where_the_kernel_has_it` to find out.
pub fn has_write_protection() -> bool {
    let answer = watari_ram::self_test();
    if let Err(error) = &answer {
        println!("skipped: {error}");
    }
    answer.is_ok()
}

/// Whether the kernel's own accesses to absent pages of a load wait; says so if not.
pub fn kernel_waits(load: &Load) -> bool {
    if !load.kernel_waits {
        println!("skipped: this user cannot have the kernel wait for pages");
    }
    load.kernel_waits
}
