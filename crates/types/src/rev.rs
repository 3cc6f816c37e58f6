//! How a person names a snapshot: `NAME`, `NAME@GENERATION`, `NAME@TAG`, or a snapshot id's prefix.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::{Generation, MachineName};

/// A revision as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rev {
    /// `NAME`, which may also turn out to be an id's prefix: a machine of that name wins.
    Bare(String),
    /// `NAME@…`.
    At(MachineName, RevTarget),
}

/// What stands behind the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevTarget {
    /// A number: that generation.
    Generation(Generation),
    /// Anything else: the snapshot with that tag.
    Tag(String),
}

/// A text that cannot be a revision.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a revision")]
pub struct RevError(pub String);

/// Longest tag, in bytes.
const MAX_TAG: usize = 64;

impl RevTarget {
    /// Whether `tag` may be given to a snapshot: letters, digits, `-`, `_` and `.`, not starting with a dot,
    /// not all digits (that is a generation), at most 64 bytes.
    pub fn is_tag(tag: &str) -> bool {
        !tag.is_empty()
            && tag.len() <= MAX_TAG
            && !tag.starts_with('.')
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !tag.bytes().all(|b| b.is_ascii_digit())
    }
}

impl FromStr for Rev {
    type Err = RevError;

    fn from_str(text: &str) -> Result<Self, RevError> {
        let bad = || RevError(text.chars().take(80).collect());
        let Some((name, target)) = text.split_once('@') else {
            return text.parse::<MachineName>().map(|name| Rev::Bare(name.into())).map_err(|_| bad());
        };
        let name = name.parse().map_err(|_| bad())?;
        let target = match target.parse() {
            Ok(number) => RevTarget::Generation(Generation(number)),
            Err(_) if RevTarget::is_tag(target) => RevTarget::Tag(target.to_owned()),
            Err(_) => return Err(bad()),
        };
        Ok(Rev::At(name, target))
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rev::Bare(text) => f.write_str(text),
            Rev::At(name, RevTarget::Generation(generation)) => write!(f, "{name}@{generation}"),
            Rev::At(name, RevTarget::Tag(tag)) => write!(f, "{name}@{tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_read_back_as_typed_and_nonsense_is_refused() {
        for good in ["web", "web@3", "web@before-upgrade", "1a2b3c"] {
            assert_eq!(good.parse::<Rev>().unwrap().to_string(), good);
        }
        for bad in ["", "@3", "web@", "web@../x", "../web", "web@.x", "a b"] {
            assert!(bad.parse::<Rev>().is_err(), "{bad:?}");
        }
    }
}
