//! Everything that is shown on running guests, in one program: two at a time keep two cores at work to the end.

#![allow(unreachable_pub, reason = "a test program has no public interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on must say so and fail")]

mod lab;

mod apart;
mod arrival;
mod console;
mod cores;
mod cuts;
mod debian;
mod debugger;
mod depots;
mod disks;
mod ends;
mod failures;
mod garbage;
mod images;
mod keyboard;
mod lan;
mod lazy;
mod lives;
mod mesh;
mod screen;
mod stamps;
mod teleport;
mod trackers;
mod undo;
