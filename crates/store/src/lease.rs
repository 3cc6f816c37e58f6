//! Writers, and who removes garbage, keep out of each other's way without waiting for each other.
//!
//! A writer counts on what it has found in the store long before a ref says so. So it has a lease from before it looks
//! until its ref is there. Who removes garbage first puts it aside, into `condemned/`: readers still find it there, and
//! a writer whose lease begins now does not count on it. It is removed once all leases that began before are over, and
//! brought back if one of them has made use of it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use watari_types::SnapshotId;

use crate::error::Error;
use crate::files::{self, NewFile};
use crate::history::manifests_in;
use crate::pack::PackId;
use crate::packs::Place;
use crate::store::Store;

/// While it lives, nothing goes away that was in the store when it began and was not condemned by then.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

struct Held {
    /// None where nothing goes away.
    _file: Option<NewFile>,
    condemned_packs: HashSet<PackId>,
    condemned_snapshots: HashSet<SnapshotId>,
}

impl Lease {
    /// Whether what is there stays there.
    pub(crate) fn covers(&self, place: &Place) -> bool {
        !(place.pack.is_condemned && self.0.condemned_packs.contains(&place.pack.id))
    }

    /// Whether a condemned snapshot stays for its sake.
    pub(crate) fn saves(&self, snapshot: SnapshotId) -> bool {
        !self.0.condemned_snapshots.contains(&snapshot)
    }
}

impl Store {
    /// For a writer: pages and snapshots that are in the store by now, whoever put them there, stay until the lease is
    /// dropped. To be taken before anything is looked for, and kept until refs name what was written.
    pub fn lease(&self) -> Result<Lease, Error> {
        let layout = self.layout();
        let file = layout.may_shrink().then(|| NewFile::create(&layout.leases())).transpose()?;
        // Not before: what is condemned after this look has to wait for this lease.
        self.refresh()?;
        let snapshots = manifests_in(layout, &layout.condemned())?.into_iter().map(|(id, _)| id).collect();
        Ok(Lease(Arc::new(Held {
            _file: file,
            condemned_packs: self.packs().condemned(),
            condemned_snapshots: snapshots,
        })))
    }

    /// The leases there are now.
    pub(crate) fn leases(&self) -> Result<Leases, Error> {
        Ok(Leases(files::list(&self.layout().leases())?))
    }
}

/// Leases that were there at one moment.
pub(crate) struct Leases(Vec<PathBuf>);

impl Leases {
    /// Whether all of them are over by now.
    pub(crate) fn are_over(&mut self) -> bool {
        self.0.retain(|path| !files::remove_if_abandoned(path));
        self.0.is_empty()
    }

    /// How many were not, last time it was asked.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
