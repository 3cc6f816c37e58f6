//! Names that never change hands by accident: each id is its own type.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that should have been an id and is not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {what}: expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    /// What the text was meant to name.
    pub what: &'static str,
    /// The text itself.
    pub text: String,
    /// How many hexadecimal digits it should have had.
    pub digits: usize,
}

/// Text, parsing and serde (as lower-case hexadecimal text) for a newtype over a byte array.
macro_rules! hex_id {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..$len.min(8)]))
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    what: stringify!($name),
                    text: text.chars().take(80).collect(),
                    digits: $len * 2,
                })?;
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use hex_id;

/// A snapshot's name: the BLAKE3 hash of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub [u8; 32]);
hex_id!(SnapshotId, 32);

/// A machine's name for ever: random, given at creation, kept through renames and moves. A clone has its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(pub [u8; 16]);
hex_id!(MachineId, 16);

impl MachineId {
    /// The id in the 8-4-4-4-12 form that SMBIOS and QEMU's `-uuid` use.
    pub fn to_uuid(&self) -> String {
        let h = self.to_string();
        format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

/// A node's name: its ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 32]);
hex_id!(NodeId, 32);

/// A mesh's name: random, made with its first member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeshId(pub [u8; 16]);
hex_id!(MeshId, 16);

/// A machine's snapshot counter: the first snapshot is generation 1, and a number is never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The number the snapshot after this one gets.
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts a machine's activations, anywhere; the higher epoch wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next activation.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_wrong_length_is_refused_with_its_text() {
        let err = "abc".parse::<MachineId>().unwrap_err();
        assert!(err.to_string().contains("\"abc\"") && err.to_string().contains("32"), "{err}");
    }

    #[test]
    fn a_machine_id_has_the_uuid_form() {
        let id: MachineId = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(id.to_uuid(), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn ids_serialise_as_text_and_counters_as_numbers() {
        let json = serde_json::to_string(&(MachineId([1; 16]), Generation(3), Epoch(2))).unwrap();
        assert_eq!(json, r#"["01010101010101010101010101010101",3,2]"#);
        let back: (MachineId, Generation, Epoch) = serde_json::from_str(&json).unwrap();
        assert_eq!(back, (MachineId([1; 16]), Generation(3), Epoch(2)));
    }
}
