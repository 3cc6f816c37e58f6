//! The node's key: who made a snapshot, provably.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use watari_types::NodeId;

use crate::error::{At, Error};
use crate::files::{NewFile, folder_of};

/// A node's Ed25519 key. The public half is the node's id.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// Reads the key at `path`, or makes one there (mode 0600, complete or not at all). Of several processes
    /// that do so at once, all get the same key.
    ///
    /// Fails with [`Error::Damaged`] if the file holds no key; it is never overwritten.
    pub fn load_or_create(path: &Path) -> Result<NodeKey, Error> {
        match fs::read(path) {
            Ok(content) => Self::parse(&content)
                .ok_or_else(|| Error::damaged(path, "it should hold 64 hexadecimal digits and a newline")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }

    fn create(path: &Path) -> Result<NodeKey, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::from).at("get random bytes for", path)?;
        let file = NewFile::create(folder_of(path))?;
        file.write_at(format!("{}\n", hex::encode(seed)).as_bytes(), 0)?;
        if file.publish_new(path)? { Ok(Self::from_seed(seed)) } else { Self::load_or_create(path) }
    }

    fn parse(content: &[u8]) -> Option<NodeKey> {
        let mut seed = [0; 32];
        hex::decode_to_slice(content.strip_suffix(b"\n")?, &mut seed).ok()?;
        Some(Self::from_seed(seed))
    }

    /// The key that grows from `seed`, which must be random and secret.
    pub fn from_seed(seed: [u8; 32]) -> NodeKey {
        NodeKey(SigningKey::from_bytes(&seed))
    }

    /// What it grows from: the secret itself, for what has to hold the same key in another form.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`. What different messages mean must differ in their beginning.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Whether `node` signed `message`.
    pub fn verify(node: NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&node.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret)", self.id())
    }
}
