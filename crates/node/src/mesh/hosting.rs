//! What this node does for other members of its mesh.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use watari_mesh::exchange::{self, Link, Offer};
use watari_mesh::handover::{Arriving, Call, Footing, Reply};
use watari_mesh::{HeldMachine, Holdings, Host};
use watari_store::Parcel;
use watari_types::{ErrorReport, MachineId, MachineName, NodeId};

use crate::depots::{offered_by, tags_of};
use crate::node::Node;
use crate::{Error, Result};

/// The node, as others reach it.
pub(super) struct Hosting(Weak<Node>);

impl Hosting {
    pub(super) fn of(node: &Arc<Node>) -> Arc<Hosting> {
        Arc::new(Hosting(Arc::downgrade(node)))
    }
}

impl Host for Hosting {
    fn holdings(&self) -> Holdings {
        let held = self.0.upgrade().map(|node| node.holdings());
        held.and_then(|held| {
            held.inspect_err(|error| tracing::warn!("what is here cannot be told: {error}")).ok()
        })
        .unwrap_or_default()
    }

    fn take(&self, from: NodeId, link: &mut Link) {
        let Some(node) = self.0.upgrade() else { return };
        match exchange::take(link, &node.store, &|offer| node.accept(offer)) {
            Ok(taken) => {
                let Offer { name, generation, .. } = &taken.offer;
                tracing::info!(%from, %name, %generation, pages = taken.sent.pages, "took a snapshot");
                if let Err(error) = node.repay_all() {
                    tracing::error!(%name, "what came may be waited for: {}", error.report());
                }
            }
            Err(error) => tracing::warn!(%from, "a snapshot was not taken: {}", error.report()),
        }
    }

    fn handover(&self, from: NodeId, machine: MachineId, call: Call) -> Reply {
        self.0.upgrade().map(|node| node.hear_of(from, machine, &call)).unwrap_or_default()
    }

    fn receive(
        &self,
        from: NodeId,
        machine: MachineId,
        arriving: Arriving,
    ) -> Result<(UnixStream, Footing), ErrorReport> {
        let node = self.0.upgrade().ok_or_else(|| Error::Closing.report())?;
        node.await_machine(from, machine, arriving).map_err(|error| error.report())
    }

    fn lend(&self, to: NodeId, machine: MachineId) -> Result<UnixStream, ErrorReport> {
        let node = self.0.upgrade().ok_or_else(|| Error::Closing.report())?;
        node.lend(to, machine).map_err(|error| error.report())
    }

    fn watch(&self, machine: MachineId, may_control: bool) -> Result<(UnixStream, MachineName), ErrorReport> {
        let node = self.0.upgrade().ok_or_else(|| Error::Closing.report())?;
        node.let_visit(machine, may_control).map_err(|error| error.report())
    }

    fn give(&self, to: NodeId, rev: &str, link: &mut Link) {
        let Some(node) = self.0.upgrade() else { return };
        match node.give(rev, link) {
            Ok(()) => tracing::info!(%to, rev, "gave a snapshot"),
            Err(error) => {
                link.refuse(&error.report());
                tracing::warn!(%to, rev, "a snapshot was not given: {}", error.report());
            }
        }
    }
}

impl Node {
    /// What is here: machines, and those of which only snapshots are.
    pub(crate) fn holdings(&self) -> Result<Holdings> {
        let mut machines = Vec::new();
        let mut here: BTreeSet<MachineId> = BTreeSet::new();
        for info in self.list()? {
            here.insert(info.id);
            let state =
                serde_json::to_value(info.state).ok().and_then(|state| Some(state.as_str()?.to_owned()));
            machines.push(HeldMachine {
                id: info.id,
                name: info.name,
                state: state.unwrap_or_default(),
                generation: info.generation,
            });
        }
        for id in self.store.machines()?.into_iter().filter(|id| !here.contains(id)) {
            if let Some((generation, newest)) = self.store.refs(id).survey()?.snapshots.last() {
                let (name, state) = (self.store.snapshot(*newest)?.draft.machine_name, "held".to_owned());
                machines.push(HeldMachine { id, name, state, generation: Some(*generation) });
            }
        }
        Ok(Holdings { machines, store_bytes: self.store.bytes()? })
    }

    /// Whether a snapshot may be put here. It may not be among those of a machine that lives here: its keeper alone adds
    /// to its history.
    fn accept(&self, offer: &Offer) -> Result<(), ErrorReport> {
        match self.name_of(offer.machine) {
            Ok(None) => Ok(()),
            Ok(Some(name)) if self.live(&name).is_none() || self.is_owed(&name, offer) => Ok(()),
            Ok(Some(name)) => Err(Error::RunsHere(name).report()),
            Err(error) => Err(error.report()),
        }
    }

    /// Gives the snapshot that a revision names here, of a machine or of one whose snapshots are here.
    fn give(&self, rev: &str, link: &mut Link) -> Result<()> {
        let found = offered_by(self, rev)?;
        let tags = tags_of(&found.survey, found.id);
        let parcel =
            Parcel { machine: found.machine, generation: found.generation, id: found.id, tags: &tags };
        exchange::give(link, &self.store, &parcel, &found.name, &|_| ())?;
        Ok(())
    }
}
