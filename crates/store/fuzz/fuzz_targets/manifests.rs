//! libFuzzer on a store's manifests. `scripts/fuzz manifests` runs it.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use hostile::{Subject, face};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| face(Subject::Manifests, input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    hostile::mutants::mutate(data, size, max_size, seed, fuzzer_mutate)
});
