//! Random choices that can be made again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The variable that repeats the choices of an earlier run.
const SEED: &str = "WATARI_SEED";

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub struct Chance {
    pub seed: u64,
    state: u64,
}

impl Chance {
    /// Other choices each time. Says how to have these again, which is seen if the test fails.
    pub fn new() -> Chance {
        let given = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64 % 1_000_000_000;
        let seed = given.unwrap_or_else(now);
        eprintln!("{SEED}={seed}");
        Chance { seed, state: seed }
    }

    /// A number below another.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Sleeps for a moment of at most so many milliseconds.
    pub fn sleep_ms(&mut self, longest: u64) {
        std::thread::sleep(Duration::from_millis(self.below(longest + 1)));
    }
}
