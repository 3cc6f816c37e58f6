//! Snapshots to other nodes and from them.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use tokio::runtime::Handle;
use watari_keeper::protocol::Progress;
use watari_mesh::exchange::{self, Offer};
use watari_store::Parcel;
use watari_types::{ErrorReport, MachineName, NodeId};

use crate::api::{DepotRequest, PullRequest, Pulled, PushRequest, Pushed};
use crate::depots::{Arrived, offered_by, tags_of, tell};
use crate::node::{Busy, Node, OnProgress};
use crate::{Error, Result};

/// How far a transfer to another node is.
pub(crate) fn sending(sent: &exchange::Progress) -> Progress {
    let step = format!("sending pages, {} MiB so far", sent.bytes >> 20);
    Progress { step, done: sent.pages_done, total: sent.pages_total }
}

impl Node {
    /// The node of the mesh that is meant, if none is meant that is a folder or a file.
    ///
    /// # Errors
    /// What may be a node's name is none, and nothing of that name is there either: it is more likely mistyped than a depot
    /// that is to be begun.
    pub(crate) fn node_meant(&self, depot: &DepotRequest) -> Result<Option<NodeId>> {
        let Some(name) = &depot.node else { return Ok(None) };
        let found = self.mesh().and_then(|mesh| Ok(mesh.find(name)?));
        match found {
            Ok(node) => Ok(Some(node)),
            Err(_) if Path::new(&depot.address).exists() => Ok(None),
            Err(error) => {
                let ErrorReport { kind, message, .. } = error.report();
                let hint = format!("`watari nodes` lists the nodes; a folder is written ./{name}");
                Err(ErrorReport::new(kind, message, hint).into())
            }
        }
    }

    /// Gives a node a snapshot: what is not there yet.
    pub(crate) fn push_to(&self, request: &PushRequest, to: NodeId, progress: OnProgress) -> Result<Pushed> {
        // Before it is looked for, so that it does not go meanwhile.
        let _lease = self.store.lease()?;
        let found = offered_by(self, &request.rev)?;
        let tags = tags_of(&found.survey, found.id);
        let parcel =
            Parcel { machine: found.machine, generation: found.generation, id: found.id, tags: &tags };
        tell(progress, "calling the node");
        let mut link = Handle::current().block_on(self.mesh()?.begin_giving(to, request.limit_bytes_s))?;
        let began = Instant::now();
        let given =
            exchange::give(&mut link, &self.store, &parcel, &found.name, &|sent| progress(sending(&sent)))?;
        tracing::info!(%to, rev = request.rev, pages = given.pages, took = ?began.elapsed(), "gave a snapshot");
        Ok(Pushed {
            name: found.name,
            id: found.id,
            generation: found.generation,
            depot: to.to_string(),
            pages_sent: given.pages,
            bytes_sent: given.bytes,
        })
    }

    /// Takes a snapshot from a node: what is not here yet.
    pub(crate) fn pull_from(
        &self,
        request: &PullRequest,
        from: NodeId,
        progress: OnProgress,
    ) -> Result<Pulled> {
        let Some(rev) = &request.rev else {
            return Err(Error::BadRequest("say which snapshot the node is to give".to_owned()));
        };
        let wanted = request.name.as_deref().map(str::parse::<MachineName>).transpose()?;
        tell(progress, "calling the node");
        let mut link = Handle::current().block_on(self.mesh()?.begin_taking(from, rev))?;
        // Which machine it is, and so what is to be locked, is known once it is offered.
        let place: RefCell<Option<(MachineName, bool, Busy)>> = RefCell::new(None);
        let accept = |offer: &Offer| -> Result<(), ErrorReport> {
            let found = self.place_for(offer, wanted.clone()).map_err(|error| error.report())?;
            tell(progress, "taking pages");
            *place.borrow_mut() = Some(found);
            Ok(())
        };
        let taken = exchange::take(&mut link, &self.store, &accept)?;
        let Some((name, is_new, _busy)) = place.into_inner() else {
            return Err(Error::Internal("a snapshot came that was not offered".to_owned()));
        };
        let Offer { machine, generation, line, .. } = taken.offer;
        let snapshots: Vec<_> = line.first().map(|id| (generation, *id)).into_iter().collect();
        self.settle_in(Arrived { machine, snapshots: &snapshots, received: taken.sent }, name, is_new)
    }

    /// What a machine that is offered is called here, and whether that is new.
    fn place_for(&self, offer: &Offer, wanted: Option<MachineName>) -> Result<(MachineName, bool, Busy)> {
        let name = self.name_here(offer.machine, &offer.name, wanted)?;
        let busy = self.blocking_lock(&name);
        let is_new = self.name_of(offer.machine)?.is_none();
        if is_new {
            self.ensure_free(&name)?;
        }
        Ok((name, is_new, busy))
    }
}
