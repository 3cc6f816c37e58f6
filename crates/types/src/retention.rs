//! Which snapshots a machine keeps, as its `machine.toml` says.
//!
//! ```toml
//! [retention]
//! keep-last = 60
//! keep-every = ["1h for 2d", "1d for 90d", "30d"]
//! ```
//!
//! Nothing is decided by a clock read here, and without a policy everything is kept.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Generation;

/// A machine's policy. A snapshot that no rule keeps expires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Retention {
    /// So many of the newest are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Of each of these spans of time the last one is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_every: Vec<KeepEvery>,
}

/// The last snapshot of every `every`, for as long as it is younger than `within`: `1h for 2d`, or `30d` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeepEvery {
    /// The span, at least a second. Spans are counted from 1970 on, so days are those of UTC.
    pub every: Duration,
    /// How old a snapshot may be.
    pub within: Option<Duration>,
}

/// The text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} does not say what to keep: write \"1h for 2d\", or \"30d\" for ever")]
pub struct KeepEveryError(String);

impl FromStr for KeepEvery {
    type Err = KeepEveryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span =
            |text: &str| humantime::parse_duration(text.trim()).map_err(|_| KeepEveryError(text.to_owned()));
        let (every, within) = match text.split_once(" for ") {
            Some((every, within)) => (span(every)?, Some(span(within)?)),
            None => (span(text)?, None),
        };
        if every < Duration::from_secs(1) {
            Err(KeepEveryError(text.to_owned()))
        } else {
            Ok(Self { every, within })
        }
    }
}

impl TryFrom<String> for KeepEvery {
    type Error = KeepEveryError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeepEvery> for String {
    fn from(rule: KeepEvery) -> String {
        rule.to_string()
    }
}

impl fmt::Display for KeepEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.every))?;
        match self.within {
            Some(within) => write!(f, " for {}", humantime::format_duration(within)),
            None => Ok(()),
        }
    }
}

/// What the policy needs to know of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    /// Its number.
    pub generation: Generation,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Whether it stays whatever the policy says: it has a tag, or the machine's present state descends from it.
    pub is_held: bool,
}

impl Retention {
    /// Whether everything is kept.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The snapshots that expire, of all that a machine has, at a time in milliseconds since 1970.
    pub fn expired(&self, snapshots: &[Aged], now_unix_ms: u64) -> BTreeSet<Generation> {
        if self.is_empty() {
            return BTreeSet::new();
        }
        let mut newest_first: Vec<&Aged> = snapshots.iter().collect();
        newest_first.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.generation));
        let last = self.keep_last.unwrap_or(0) as usize;
        let mut kept: BTreeSet<Generation> =
            newest_first.iter().take(last).map(|snapshot| snapshot.generation).collect();
        kept.extend(snapshots.iter().filter(|snapshot| snapshot.is_held).map(|snapshot| snapshot.generation));
        for rule in &self.keep_every {
            kept.extend(rule.kept(&newest_first, now_unix_ms));
        }
        snapshots
            .iter()
            .map(|snapshot| snapshot.generation)
            .filter(|generation| !kept.contains(generation))
            .collect()
    }
}

impl KeepEvery {
    fn kept(&self, newest_first: &[&Aged], now_unix_ms: u64) -> Vec<Generation> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let since = self.within.map_or(0, |within| now_unix_ms.saturating_sub(millis(within)));
        let mut spans = BTreeSet::new();
        let young = newest_first.iter().filter(|snapshot| snapshot.created_unix_ms >= since);
        let last = young.filter(|snapshot| spans.insert(snapshot.created_unix_ms / millis(self.every)));
        last.map(|snapshot| snapshot.generation).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn policy(text: &str) -> Retention {
        toml::from_str(text).unwrap()
    }

    /// A snapshot every ten minutes.
    fn history(count: u64) -> Vec<Aged> {
        let aged = |number| Aged {
            generation: Generation(number),
            created_unix_ms: number * HOUR / 6,
            is_held: false,
        };
        (1..=count).map(aged).collect()
    }

    fn kept(policy: &Retention, snapshots: &[Aged], now: u64) -> Vec<u64> {
        let expired = policy.expired(snapshots, now);
        snapshots.iter().map(|s| s.generation).filter(|g| !expired.contains(g)).map(|g| g.0).collect()
    }

    #[test]
    fn the_last_ones_and_one_of_each_span_stay() {
        let snapshots = history(100);
        let now = 100 * HOUR / 6;
        assert_eq!(kept(&policy(""), &snapshots, now).len(), 100, "without a policy all are kept");
        assert_eq!(kept(&policy("keep-last = 3"), &snapshots, now), [98, 99, 100]);
        assert_eq!(kept(&policy("keep-last = 0"), &snapshots, now), [0; 0]);
        let hourly = policy("keep-last = 2\nkeep-every = [\"1h for 3h\"]");
        assert_eq!(kept(&hourly, &snapshots, now), [83, 89, 95, 99, 100]);
        let daily = policy("keep-every = [\"5h\"]");
        assert_eq!(kept(&daily, &snapshots, now), [29, 59, 89, 100]);
        let mut held = snapshots.clone();
        held[4].is_held = true;
        assert_eq!(kept(&policy("keep-last = 1"), &held, now), [5, 100]);
    }

    #[test]
    fn a_policy_is_written_as_it_is_read_and_nonsense_is_refused() {
        let text = "keep-last = 60\nkeep-every = [\"1h for 2days\", \"30days\"]\n";
        assert_eq!(toml::to_string(&policy(text)).unwrap(), text);
        for bad in ["1h for", "hourly", "", "0s", "1h for ever", "10ms", "-1h"] {
            assert!(bad.parse::<KeepEvery>().is_err(), "{bad:?}");
        }
        assert!(toml::from_str::<Retention>("keep-frist = 1").is_err());
    }

    proptest! {
        /// As time goes on and it is applied again and again, the same stays as if it had been applied once.
        #[test]
        fn how_often_it_is_applied_makes_no_difference(count in 1_u64..200, last in 0_u32..10, pause in 1_u64..30) {
            let policy = policy(&format!("keep-last = {last}\nkeep-every = [\"1h for 10h\", \"7h\"]"));
            let all = history(count);
            let now = count * HOUR / 6;
            let mut left: Vec<Aged> = Vec::new();
            for (number, snapshot) in (1..).zip(&all) {
                left.push(*snapshot);
                if number % pause == 0 {
                    let expired = policy.expired(&left, number * HOUR / 6);
                    left.retain(|snapshot| !expired.contains(&snapshot.generation));
                }
            }
            prop_assert_eq!(kept(&policy, &left, now), kept(&policy, &all, now));
        }
    }
}
