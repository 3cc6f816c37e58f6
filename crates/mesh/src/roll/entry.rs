//! One node's standing, as a member has signed it.

use serde::{Deserialize, Serialize};
use watari_store::NodeKey;
use watari_types::{MeshId, NodeId};

/// What the signed bytes begin with.
const DOMAIN: &[u8] = b"watari mesh entry v1\0";

/// Whether a node belongs to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does.
    Member,
    /// It does not any more.
    Removed,
}

/// A node's standing, signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    // In this order the last of a node's entries is the one that counts.
    pub(super) node: NodeId,
    pub(super) version: u64,
    pub(super) standing: Standing,
    pub(super) by: NodeId,
    pub(super) mesh: MeshId,
    #[serde(with = "hex")]
    pub(super) signature: [u8; 64],
}

impl Entry {
    pub(super) fn sign(key: &NodeKey, mesh: MeshId, node: NodeId, version: u64, standing: Standing) -> Entry {
        let mut entry = Entry { node, version, standing, by: key.id(), mesh, signature: [0; 64] };
        entry.signature = key.sign(&entry.signed());
        entry
    }

    pub(super) fn is_signed(&self) -> bool {
        NodeKey::verify(self.by, &self.signed(), &self.signature)
    }

    /// What is signed: all of it but the signature, every part of a fixed length.
    fn signed(&self) -> Vec<u8> {
        let version = self.version.to_le_bytes();
        [DOMAIN, &self.mesh.0, &self.node.0, &version, &[self.standing as u8], &self.by.0].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other versions of Watari verify these bytes.
    #[test]
    fn what_is_signed_stays_what_it_is() {
        let key = NodeKey::from_seed([7; 32]);
        let entry = Entry::sign(&key, MeshId([1; 16]), NodeId([2; 32]), 3, Standing::Removed);
        let by = key.id().to_string();
        let parts = [
            hex::encode(DOMAIN),
            "01".repeat(16),
            "02".repeat(32),
            "0300000000000000".into(),
            "01".into(),
            by,
        ];
        assert_eq!(hex::encode(entry.signed()), parts.concat());
        assert!(entry.is_signed());
        for at in 0..entry.signed().len() {
            let mut other = entry.clone();
            match at % 4 {
                0 => other.version ^= 1,
                1 => other.node.0[at % 32] ^= 1,
                2 => other.mesh.0[at % 16] ^= 1,
                _ => other.standing = Standing::Member,
            }
            assert!(!other.is_signed());
        }
    }
}
