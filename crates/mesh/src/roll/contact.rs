//! How a node is reached and what it calls itself, as it has signed it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use watari_store::NodeKey;
use watari_types::{MeshId, NodeId, NodeName};

use super::RollError;

/// What the signed bytes begin with.
const DOMAIN: &[u8] = b"watari mesh contact v1\0";
const MOST_PROGRAM_BYTES: usize = 64;
const MOST_RELAY_BYTES: usize = 256;

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    node: NodeId,
    /// When it was signed, in milliseconds since 1970 by that node's clock; the latest counts.
    pub(super) version: u64,
    name: NodeName,
    program: String,
    addresses: Vec<SocketAddr>,
    relay: Option<String>,
    #[serde(with = "hex")]
    signature: [u8; 64],
}

impl Contact {
    /// A node has at most so many addresses.
    pub const MOST_ADDRESSES: usize = 16;

    /// What a node says of itself: its name, the version of this program, where it is.
    ///
    /// # Errors
    /// Something is too long.
    pub fn sign(
        key: &NodeKey,
        mesh: MeshId,
        version: u64,
        name: NodeName,
        program: &str,
        addresses: &[SocketAddr],
        relay: Option<&str>,
    ) -> Result<Contact, RollError> {
        let (program, addresses, relay) = (program.to_owned(), addresses.to_vec(), relay.map(str::to_owned));
        let node = key.id();
        let mut contact = Contact { node, version, name, program, addresses, relay, signature: [0; 64] };
        if !contact.is_short() {
            return Err(RollError::TooLong(node));
        }
        contact.signature = key.sign(&contact.signed(mesh));
        Ok(contact)
    }

    pub(super) fn is_short(&self) -> bool {
        self.program.len() <= MOST_PROGRAM_BYTES
            && self.addresses.len() <= Contact::MOST_ADDRESSES
            && self.relay.as_ref().is_none_or(|relay| relay.len() <= MOST_RELAY_BYTES)
    }

    pub(super) fn is_signed(&self, mesh: MeshId) -> bool {
        NodeKey::verify(self.node, &self.signed(mesh), &self.signature)
    }

    /// What is signed: all of it but the signature, each text with its length before it.
    fn signed(&self, mesh: MeshId) -> Vec<u8> {
        let mut bytes = [DOMAIN, &mesh.0, &self.node.0, &self.version.to_le_bytes()].concat();
        let mut text = |text: &str| {
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(self.name.as_str());
        text(&self.program);
        text(self.relay.as_deref().unwrap_or_default());
        self.addresses.iter().for_each(|address| text(&address.to_string()));
        bytes
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What it calls itself.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The version of Watari that it runs.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Where it is reached directly.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The relay it can be reached through, by its URL.
    pub fn relay(&self) -> Option<&str> {
        self.relay.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_stays_what_it_is_and_counts_in_its_mesh_only() {
        let key = NodeKey::from_seed([7; 32]);
        let (mesh, address) = (MeshId([1; 16]), "10.0.0.1:9".parse().unwrap());
        let name = NodeName::from_host("desk");
        let contact = Contact::sign(&key, mesh, 3, name, "0.1", &[address], Some("https://r")).unwrap();
        let text = |text: &str| format!("{:02x}00{}", text.len(), hex::encode(text));
        let texts = ["desk", "0.1", "https://r", "10.0.0.1:9"].map(text).concat();
        let head =
            [hex::encode(DOMAIN), "01".repeat(16), key.id().to_string(), "0300000000000000".into()].concat();
        assert_eq!(hex::encode(contact.signed(mesh)), head + &texts);
        assert!(contact.is_signed(mesh) && !contact.is_signed(MeshId([2; 16])));
        assert!(!Contact { relay: None, ..contact.clone() }.is_signed(mesh));
        let long = "x".repeat(65);
        assert!(Contact::sign(&key, mesh, 3, contact.name, &long, &[address], None).is_err());
    }
}
