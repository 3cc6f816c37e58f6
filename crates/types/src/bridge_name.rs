//! What a host calls a bridge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a bridge of the host's: up to 15 letters, digits, '-', '_' and '.', as Linux names network interfaces, not
/// starting with '-' or '.'.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);

/// A text that may not be a bridge's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot be a bridge's name: use up to 15 letters, digits, '-', '_' and '.'")]
pub struct BridgeNameError(pub String);

impl BridgeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BridgeName {
    type Err = BridgeNameError;

    fn from_str(text: &str) -> Result<Self, BridgeNameError> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins_fine = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if begins_fine && text.len() <= 15 && text.chars().all(is_fine) {
            Ok(BridgeName(text.to_owned()))
        } else {
            Err(BridgeNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for BridgeName {
    type Error = BridgeNameError;

    fn try_from(text: String) -> Result<Self, BridgeNameError> {
        text.parse()
    }
}

impl From<BridgeName> for String {
    fn from(name: BridgeName) -> String {
        name.0
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_interfaces() {
        for name in ["br0", "vmbr0", "lan.7", "_x", "abcdefghijklmno"] {
            assert_eq!(name.parse::<BridgeName>().unwrap().to_string(), name);
        }
        for name in ["", "-br0", "..", "br 0", "br/0", "abcdefghijklmnop", "br0,helper=/bin/sh", "brücke"] {
            assert!(name.parse::<BridgeName>().is_err(), "{name}");
        }
    }
}
