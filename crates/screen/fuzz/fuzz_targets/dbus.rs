//! libFuzzer in the place of QEMU, over D-Bus. `scripts/fuzz dbus` runs it.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use hostile::{Subject, face};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| face(Subject::Dbus, input));
