//! Whose snapshots may run here: this node's own, those of its mesh, and those of nodes that the user said so of. A snapshot holds devices'
//! state, which QEMU reads, and a whole computer with all it may do.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};

use watari_types::{NodeId, SnapshotId};

use crate::api::{TrustList, TrustRequest};
use crate::node::{Node, hold};
use crate::{Error, Result};

/// One id a line.
const FILE: &str = "trusted";

impl Node {
    /// Refuses a snapshot that no trusted node has signed.
    pub(crate) fn ensure_trusted(&self, snapshot: SnapshotId) -> Result<()> {
        let node = self.store.signer(snapshot)?;
        match self.trusts(node)? {
            true => Ok(()),
            false => Err(Error::Untrusted { snapshot, node }),
        }
    }

    /// Whether a node's snapshots may run here.
    pub(crate) fn trusts(&self, node: NodeId) -> Result<bool> {
        Ok(node == self.id || self.is_member(node) || self.trusted()?.contains(&node))
    }

    /// The nodes that are trusted besides this one.
    pub(crate) fn trusted(&self) -> Result<BTreeSet<NodeId>> {
        let path = self.home.node_file(FILE);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            text => text.map_err(Error::io("read", &path))?,
        };
        let node = |line: &str| {
            line.trim().parse().map_err(|_| {
                let what = io::Error::other(format!("{line:?} is no node's id"));
                Error::Io { action: "read", path: path.clone(), source: what }
            })
        };
        text.lines().filter(|line| !line.trim().is_empty()).map(node).collect()
    }

    /// Trusts a node from now on, or no longer.
    pub(crate) fn trust(&self, request: &TrustRequest) -> Result<TrustList> {
        let _alone = hold(&self.trusting);
        let mut trusted = self.trusted()?;
        match request.remove {
            true => trusted.remove(&request.node),
            false => trusted.insert(request.node),
        };
        let path = self.home.node_file(FILE);
        let folder = path.parent().unwrap_or(self.home.root());
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            trusted.iter().try_for_each(|node| writeln!(file, "{node}"))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(Error::io("write", &path))?;
        Ok(TrustList { trusted: trusted.into_iter().collect() })
    }
}
