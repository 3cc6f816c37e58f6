//! libFuzzer in the place of an NBD client. `scripts/fuzz` runs it.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use hostile::dice::Dice;
use hostile::mutants::mutant;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(init: ignore_broken_pipes(), |input: &[u8]| hostile::face(input));

// Half of the inputs change byte by byte, as libFuzzer knows best, and half message by message.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut dice = Dice(u64::from(seed));
    if dice.roll(2) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let made = mutant(&data[..size], &mut dice);
    let len = made.len().min(max_size);
    data[..len].copy_from_slice(&made[..len]);
    len
});

/// As every Rust program does before `main`; here `main` is libFuzzer's.
fn ignore_broken_pipes() {
    // SAFETY: no handler is installed, only a default replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
