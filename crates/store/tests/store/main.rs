//! The store as others use it. One program, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

mod changes;
mod collect;
mod crash;
mod damage;
mod full_disk;
mod golden;
mod history;
mod index;
mod model;
mod repair;
mod support;
mod transfer;
