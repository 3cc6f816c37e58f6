//! libFuzzer on what other nodes send: tickets. `scripts/fuzz tickets` runs it.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use hostile::{Subject, face};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| face(Subject::Tickets, input));
