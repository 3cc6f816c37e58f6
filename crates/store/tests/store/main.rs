//! The store as others use it. One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod history;
mod support;
