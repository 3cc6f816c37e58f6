//! libFuzzer on what a guest's desktop agent sends. `scripts/fuzz vdagent` runs it.

#![no_main]

#[path = "../../tests/vdagent/hostile.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hostile::face(input));
