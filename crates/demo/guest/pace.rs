//! Doing something at a rate.

use std::time::{Duration, Instant};

/// What may pile up while the program could not run, so that it never bursts.
const LONGEST: Duration = Duration::from_millis(100);

/// Hands out pages at a number of megabytes per second.
pub(crate) struct Pace {
    bytes_per_second: f64,
    owed: f64,
    last: Instant,
}

impl Pace {
    pub(crate) fn new(megabytes_per_second: f64) -> Pace {
        Pace { bytes_per_second: megabytes_per_second * 1e6, owed: 0.0, last: Instant::now() }
    }

    /// How many pieces of `bytes` have become due since the last call.
    pub(crate) fn due(&mut self, bytes: usize) -> usize {
        let now = Instant::now();
        let elapsed = now.duration_since(self.last).min(LONGEST);
        self.last = now;
        self.owed += elapsed.as_secs_f64() * self.bytes_per_second;
        let pieces = (self.owed / bytes as f64) as usize;
        self.owed -= (pieces * bytes) as f64;
        pieces
    }
}
