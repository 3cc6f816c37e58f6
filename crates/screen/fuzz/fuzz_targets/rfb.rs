//! libFuzzer in the place of QEMU's VNC server. `scripts/fuzz rfb` runs it.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use hostile::{Subject, face};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| face(Subject::Rfb, input));
