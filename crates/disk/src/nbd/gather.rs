//! Whether replies should wait a little for others to leave with.
//!
//! A client is woken for what arrives, and a guest behind it interrupted. Where its processor is what is short, a dozen
//! replies at once are worth more than each a moment sooner; where it waits for them, they are worth less. Nothing that
//! a server sees tells one from the other, so it is tried: both ways take turns for a few short windows, and the one in
//! which more requests came is kept for a while. A client that has one request at a time ends a trial at once.
//!
//! Nothing is waited for here, and no clock read.

use std::time::{Duration, Instant};

/// How long a way is tried at a time: a guest's queue goes round several times.
const WINDOW: Duration = Duration::from_millis(25);
/// Windows of a trial, in the order off, on, on, off, so that what grows or shrinks meanwhile counts for both.
const WINDOWS: u32 = 8;
/// How long the better way is kept,
const REST: Duration = Duration::from_secs(3);
/// and how long until the next trial after one that decided nothing.
const NEXT: Duration = Duration::from_millis(150);
/// So many waits in a row for nothing end a trial.
const IN_VAIN: u32 = 8;

/// For one connection.
pub(super) struct Gathering {
    is_on: bool,
    /// When what is done now began: a window of the trial, or the rest.
    since: Instant,
    rest: Duration,
    trial: Option<Trial>,
}

#[derive(Default)]
struct Trial {
    windows: u32,
    /// Requests that came in windows while it was off, and while it was on.
    came: [u32; 2],
    last: Option<Instant>,
    in_vain: u32,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_on: false, since: now, rest: NEXT, trial: None }
    }

    /// Whether a reply should wait a little if nothing else is there to be done.
    pub(super) fn is_on(&self) -> bool {
        match &self.trial {
            Some(trial) => trial.is_on(),
            None => self.is_on,
        }
    }

    /// A small request has come.
    pub(super) fn request(&mut self, now: Instant) {
        let Some(trial) = &mut self.trial else {
            if now - self.since >= self.rest {
                self.trial = Some(Trial::default());
                self.since = now;
            }
            return;
        };
        // A client that says nothing for a while has other reasons than ours.
        if trial.last.replace(now).is_some_and(|last| now - last >= WINDOW) {
            self.rest(self.is_on, NEXT, now);
        } else if now - self.since < WINDOW {
            trial.came[usize::from(trial.is_on())] += 1;
        } else if trial.windows + 1 < WINDOWS {
            trial.windows += 1;
            self.since = now;
        } else {
            let [off, on] = trial.came;
            self.rest(on > off, REST, now);
        }
    }

    /// A reply has waited, and more came or not.
    pub(super) fn waited(&mut self, more_came: bool, now: Instant) {
        let Some(trial) = &mut self.trial else { return };
        trial.in_vain = if more_came { 0 } else { trial.in_vain + 1 };
        if trial.in_vain == IN_VAIN {
            self.rest(false, NEXT, now);
        }
    }

    fn rest(&mut self, is_on: bool, rest: Duration, now: Instant) {
        *self = Self { is_on, since: now, rest, trial: None };
    }
}

impl Trial {
    fn is_on(&self) -> bool {
        matches!(self.windows % 4, 1 | 2)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// A client that keeps so many requests a second coming, more or fewer while replies wait. Its pace wavers.
    struct Client {
        off: f64,
        on: f64,
        wavers: f64,
    }

    impl Client {
        /// How many requests came within `time`, and how many would have with the better of both ways.
        fn run(&self, gathering: &mut Gathering, now: &mut Instant, time: Duration, rng: &mut Rng) -> f64 {
            let end = *now + time;
            let (mut came, mut factor, mut wavered) = (0.0, 1.0, *now);
            while *now < end {
                if *now - wavered > Duration::from_millis(3) {
                    factor = 1.0 + self.wavers * (2.0 * rng.f64() - 1.0);
                    wavered = *now;
                }
                let rate = factor * if gathering.is_on() { self.on } else { self.off };
                *now += Duration::from_secs_f64(1.0 / rate);
                gathering.request(*now);
                if gathering.is_on() {
                    gathering.waited(true, *now);
                }
                came += 1.0;
            }
            came / (self.on.max(self.off) * time.as_secs_f64())
        }
    }

    #[test]
    fn hardly_less_comes_than_in_the_better_way() {
        for seed in 0..50 {
            let rng = &mut Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut gathering = Gathering::new(now);
            // One client's load changes, as a guest's does.
            for _ in 0..4 {
                let off = 2_000.0 + 38_000.0 * rng.f64();
                let client = Client { off, on: off * (0.6 + 0.9 * rng.f64()), wavers: 0.3 };
                // Until it is found out, what was better before is done.
                client.run(&mut gathering, &mut now, REST + 2 * WINDOW * WINDOWS, rng);
                let share = client.run(&mut gathering, &mut now, Duration::from_secs(20), rng);
                assert!(share > 0.93, "{share} with seed {seed}: {} and {}", client.off, client.on);
            }
        }
    }

    #[test]
    fn who_has_one_request_at_a_time_is_hardly_made_to_wait() {
        let mut now = Instant::now();
        let mut gathering = Gathering::new(now);
        let mut waits = 0;
        for _ in 0..1_000_000 {
            now += Duration::from_micros(100);
            gathering.request(now);
            if gathering.is_on() {
                gathering.waited(false, now);
                waits += 1;
            }
        }
        // Of 40 µs, and as much again until the kernel wakes who waited: half a percent of the time.
        assert!((1..6_000).contains(&waits), "{waits} waits in 100 s");
    }

    #[test]
    fn pauses_of_the_client_decide_nothing() {
        let mut now = Instant::now();
        let mut gathering = Gathering::new(now);
        for count in 0..10_000 {
            now += if count % 50 == 0 { Duration::from_millis(30) } else { Duration::from_micros(20) };
            gathering.request(now);
        }
        assert!(!gathering.is_on);
    }
}
