//! Manifests: one file per snapshot, with its header, its deltas, its device state and a signature.

mod decode;
mod encode;
mod header;
mod runs;

pub(crate) use decode::Manifest;
pub(crate) use encode::{PackedState, encode};
pub(crate) use runs::Run;

#[cfg(test)]
mod tests;
