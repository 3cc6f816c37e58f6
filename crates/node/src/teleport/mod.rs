//! A machine moves to another node while it runs.
//!
//! What may happen when is decided by [`Tenure`](watari_mesh::handover::Tenure); here it is done. [`leaving`] is the source's
//! side: what the machine holds is brought there in snapshots, each with what changed since the last, while the guest runs; then
//! it is held, and the last one goes. [`arriving`] is the destination's: the machine is started from it, held until it is
//! written down that it runs there now, and goes on. [`tenures`] keeps what is written down.
//!
//! With `--lazy` the guest goes first: [`lending`] is what follows for the source, [`owing`] for the destination.

mod arriving;
mod coming;
mod leaving;
mod lending;
mod owing;
mod tenures;

pub(crate) use coming::Comings;
pub(crate) use leaving::settle_offers;
pub(crate) use owing::Borrowers;
pub(crate) use tenures::Tenures;
