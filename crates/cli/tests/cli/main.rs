//! The command line, as a user or a script sees it: a real binary, a real daemon where one is needed, a home of
//! its own for each test. No guest runs here.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;
mod create;
mod daemon;
mod diff;
mod doctor;
mod machine;
mod revision;
mod usage;
mod viewers;
mod web;
