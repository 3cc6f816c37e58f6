//! Whole machines: real QEMU processes under TCG with the demo guest.

mod capture;
mod guest;
mod monitor;
mod rig;
