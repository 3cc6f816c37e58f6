//! What a node calls itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A node's name for people: up to 63 lower-case letters, digits, '-', '_' and '.', starting with a letter or digit. Several
/// nodes may have the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// A text that may not be a node's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot be a node's name: use up to 63 letters, digits, '-', '_' and '.'")]
pub struct NodeNameError(pub String);

const MOST_BYTES: usize = 63;

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for a computer that calls itself like this, whatever that is.
    pub fn from_host(host: &str) -> NodeName {
        let is_fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String = host.chars().filter(is_fine).take(MOST_BYTES).collect();
        let name = name.trim_start_matches(['-', '_', '.']).to_ascii_lowercase();
        NodeName(if name.is_empty() { "node".to_owned() } else { name })
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        let name = NodeName::from_host(text);
        let is_same = name.0 == text.to_ascii_lowercase();
        if is_same { Ok(name) } else { Err(NodeNameError(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, NodeNameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_computer_has_a_name_and_only_some_texts_are_one() {
        for (host, name) in [("Laptop-1", "laptop-1"), ("Büro PC", "bropc"), ("", "node"), ("--", "node")] {
            assert_eq!(NodeName::from_host(host).as_str(), name);
        }
        assert_eq!("Desk.Lan".parse::<NodeName>().map(String::from), Ok("desk.lan".to_owned()));
        for bad in ["", "-a", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }
}
