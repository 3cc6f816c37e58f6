//! Who belongs to the mesh: the list of keys that its members signed.
//!
//! For each node there are entries, each signed by a member, and the one with the greatest version counts. A node takes an
//! entry from another only if the one who signed it is a member as far as it knows. Who removes a node signs again, in the
//! same step, everything that this one had signed: so those whom it let in stay, and from then on nothing that it signs, or
//! signed behind the remover's back, counts anywhere. Entries that no longer count are kept and passed on, so that a node
//! that was away for long can follow, step by step, how others came to sign.
//!
//! What is *not* guaranteed: when a member is removed while it signs something itself (two that remove each other, above
//! all), each node goes by what it heard first, and the lists may differ until somebody signs anew. `watari nodes` shows each
//! node's own.

mod contact;
mod entry;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use watari_store::NodeKey;
use watari_types::{MeshId, NodeId};

pub use contact::Contact;
pub use entry::{Entry, Standing};

/// More nodes are in no mesh.
const MOST_NODES: usize = 1024;
/// More entries are not passed on: every node let in and removed twice.
const MOST_ENTRIES: usize = 4 * MOST_NODES;

/// What is known of a mesh, to be sent or kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    mesh: MeshId,
    entries: Vec<Entry>,
    contacts: Vec<Contact>,
}

/// Who belongs to the mesh, as far as this node knows.
#[derive(Clone, Debug)]
pub struct Roll {
    mesh: MeshId,
    /// The entries that count.
    standing: BTreeMap<NodeId, Entry>,
    contacts: BTreeMap<NodeId, Contact>,
    /// All that ever counted, these among them.
    history: BTreeSet<Entry>,
}

/// What came of somebody else's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Whether anything is other than before.
    pub changed: bool,
    /// What does not count, and why.
    pub refused: Vec<RollError>,
}

/// Something is not so that it can count. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RollError {
    /// It is not of this mesh.
    #[error("it is of another mesh")]
    OtherMesh,
    /// There are too many nodes or entries.
    #[error(
        "a mesh has at most {MOST_NODES} nodes, and what is known of them at most {MOST_ENTRIES} entries"
    )]
    TooMany,
    /// A text is too long.
    #[error("what node {0} says of itself is too long")]
    TooLong(NodeId),
    /// A signature is not that of the node that is said to have signed.
    #[error("what is said of node {0} is not signed by the one who is said to have signed it")]
    BadSignature(NodeId),
    /// Who signed is no member.
    #[error("what is said of node {node} was signed by {by}, which is no member")]
    SignedByStranger {
        /// Of which.
        node: NodeId,
        /// By which.
        by: NodeId,
    },
    /// The node is no member.
    #[error("node {0} does not belong to the mesh")]
    NoMember(NodeId),
    /// Nobody takes out itself: another has to sign what it had signed.
    #[error("a node is taken out by another one")]
    Oneself,
}

impl Roll {
    fn empty(mesh: MeshId) -> Roll {
        Roll { mesh, standing: BTreeMap::new(), contacts: BTreeMap::new(), history: BTreeSet::new() }
    }

    /// A mesh of one, which signs for itself.
    pub fn found(mesh: MeshId, key: &NodeKey) -> Roll {
        let mut roll = Roll::empty(mesh);
        roll.count(Entry::sign(key, mesh, key.id(), 1, Standing::Member));
        roll
    }

    /// What a node goes by that was just let in: the word of the one who did, whose key it knows from its ticket.
    ///
    /// # Errors
    /// The records are not whole, or either of the two is no member by them.
    pub fn joined(me: NodeId, host: NodeId, records: Records) -> Result<Roll, RollError> {
        let roll = Roll::load(me, records)?;
        roll.member(host).map(|()| roll)
    }

    /// What this node knew when it last wrote it down.
    ///
    /// # Errors
    /// The records are not whole, or this node is no member by them.
    pub fn load(me: NodeId, records: Records) -> Result<Roll, RollError> {
        let mut roll = Roll::empty(records.mesh);
        roll.check_counts(&records)?;
        for entry in &records.entries {
            roll.check(entry)?;
            roll.count(entry.clone());
        }
        roll.drop_those_of_strangers();
        for contact in &records.contacts {
            roll.take_contact(contact)?;
        }
        roll.member(me).map(|()| roll)
    }

    /// Which mesh it is.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Whether a node belongs to it.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.standing.get(&node).is_some_and(|entry| entry.standing == Standing::Member)
    }

    fn member(&self, node: NodeId) -> Result<(), RollError> {
        if self.is_member(node) { Ok(()) } else { Err(RollError::NoMember(node)) }
    }

    /// All who belong to it, by their keys, with what they say of themselves.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Option<&Contact>)> {
        let members = self.standing.keys().filter(|node| self.is_member(**node));
        members.map(|node| (*node, self.contacts.get(node)))
    }

    /// Lets a node in. One that belongs to it already may have lost what it knew: that is as if it were let in now.
    ///
    /// # Errors
    /// Whoever signs is no member, or there are too many.
    pub fn admit(&mut self, key: &NodeKey, node: NodeId) -> Result<(), RollError> {
        self.member(key.id())?;
        if self.standing.len() >= MOST_NODES || self.history.len() >= MOST_ENTRIES {
            return Err(RollError::TooMany);
        }
        if !self.is_member(node) {
            self.sign(key, node, Standing::Member);
        }
        Ok(())
    }

    /// Takes another node out, and signs anew what it had signed.
    ///
    /// # Errors
    /// Either of them is no member, or they are one.
    pub fn remove(&mut self, key: &NodeKey, node: NodeId) -> Result<(), RollError> {
        self.member(key.id())?;
        self.member(node)?;
        if key.id() == node {
            return Err(RollError::Oneself);
        }
        self.sign(key, node, Standing::Removed);
        let signed: Vec<(NodeId, Standing)> = self
            .standing
            .values()
            .filter(|e| e.by == node && e.node != node)
            .map(|e| (e.node, e.standing))
            .collect();
        signed.into_iter().for_each(|(of, standing)| self.sign(key, of, standing));
        self.drop_those_of_strangers();
        Ok(())
    }

    fn sign(&mut self, key: &NodeKey, node: NodeId, standing: Standing) {
        let version = self.standing.get(&node).map_or(0, |entry| entry.version) + 1;
        self.count(Entry::sign(key, self.mesh, node, version, standing));
    }

    /// Has an entry count, unless a later one of the node does.
    fn count(&mut self, entry: Entry) {
        if self.standing.get(&entry.node).is_none_or(|known| *known < entry) {
            self.standing.insert(entry.node, entry.clone());
        }
        self.history.insert(entry);
    }

    /// Those that nobody who is there has let in are not there.
    fn drop_those_of_strangers(&mut self) {
        loop {
            let is_out = |entry: &&Entry| entry.standing == Standing::Member && !self.is_member(entry.by);
            let out: Vec<NodeId> = self.standing.values().filter(is_out).map(|entry| entry.node).collect();
            if out.is_empty() {
                break;
            }
            self.standing.retain(|node, _| !out.contains(node));
        }
        let standing = &self.standing;
        self.contacts.retain(|node, _| standing.get(node).is_some_and(|e| e.standing == Standing::Member));
    }

    /// Notes what a node says of itself now; whether that is new.
    pub fn announce(&mut self, contact: Contact) -> bool {
        self.take_contact(&contact).unwrap_or(false)
    }

    /// Takes what a member says.
    ///
    /// # Errors
    /// Who says it is none, it is about another mesh, or too much.
    pub fn merge(&mut self, from: NodeId, records: &Records) -> Result<Merged, RollError> {
        self.member(from)?;
        self.check_counts(records)?;
        if records.mesh != self.mesh {
            return Err(RollError::OtherMesh);
        }
        let before = self.digest();
        let mut merged = Merged::default();
        let mut rest: Vec<&Entry> =
            records.entries.iter().filter(|entry| !self.history.contains(*entry)).collect();
        rest.sort_by_key(|entry| entry.version);
        // Whoever signed may be let in by another of these.
        loop {
            let (now, later): (Vec<&Entry>, Vec<&Entry>) =
                rest.iter().partition(|entry| self.is_member(entry.by));
            if now.is_empty() {
                break;
            }
            rest = later;
            for entry in now {
                match self.check(entry) {
                    // Who signed may have been removed by the one before.
                    Ok(()) if self.is_member(entry.by) => self.count(entry.clone()),
                    Ok(()) => rest.push(entry),
                    Err(refused) => merged.refused.push(refused),
                }
            }
            self.drop_those_of_strangers();
        }
        let stranger = |entry: &&Entry| RollError::SignedByStranger { node: entry.node, by: entry.by };
        let news = |entry: &&&Entry| self.standing.get(&entry.node).is_none_or(|known| known < **entry);
        merged.refused.extend(rest.iter().filter(news).map(stranger));
        for contact in &records.contacts {
            // Of one that has been removed meanwhile it does not matter.
            if self.is_member(contact.node())
                && let Err(refused) = self.take_contact(contact)
            {
                merged.refused.push(refused);
            }
        }
        merged.changed = self.digest() != before;
        Ok(merged)
    }

    fn check_counts(&self, records: &Records) -> Result<(), RollError> {
        let most = MOST_ENTRIES.saturating_sub(self.history.len());
        let new = records.entries.iter().filter(|entry| !self.history.contains(*entry)).count();
        if new > most || records.contacts.len() > MOST_NODES { Err(RollError::TooMany) } else { Ok(()) }
    }

    fn check(&self, entry: &Entry) -> Result<(), RollError> {
        match entry {
            _ if entry.mesh != self.mesh => Err(RollError::OtherMesh),
            _ if !entry.is_signed() => Err(RollError::BadSignature(entry.node)),
            _ => Ok(()),
        }
    }

    fn take_contact(&mut self, contact: &Contact) -> Result<bool, RollError> {
        let node = contact.node();
        self.member(node)?;
        if self.contacts.get(&node).is_some_and(|known| known.version >= contact.version) {
            return Ok(false);
        }
        match contact {
            _ if !contact.is_short() => Err(RollError::TooLong(node)),
            _ if !contact.is_signed(self.mesh) => Err(RollError::BadSignature(node)),
            _ => {
                self.contacts.insert(node, contact.clone());
                Ok(true)
            }
        }
    }

    /// All of it.
    pub fn records(&self) -> Records {
        Records {
            mesh: self.mesh,
            entries: self.history.iter().cloned().collect(),
            contacts: self.contacts.values().cloned().collect(),
        }
    }

    /// What stands for who belongs to it and where they are: the same for two who agree.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.mesh.0);
        for Entry { node, version, standing, by, .. } in self.standing.values() {
            hash.update(&node.0).update(&version.to_le_bytes()).update(&[*standing as u8]).update(&by.0);
        }
        for contact in self.contacts.values() {
            hash.update(&contact.node().0).update(&contact.version.to_le_bytes());
        }
        *hash.finalize().as_bytes()
    }
}
