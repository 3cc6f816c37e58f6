//! Whole machines: real QEMU processes under TCG with the demo guest.

#![allow(clippy::unwrap_used)]

mod capture;
mod guest;
mod monitor;
mod rig;
