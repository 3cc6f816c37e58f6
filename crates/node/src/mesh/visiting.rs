//! Machines that live on one node, watched from another.
//!
//! ```text
//!  browser ──► the daemon here ── begin_watching ──► let_visit, the daemon there ──► its screen, its console
//!         a machine that lives elsewhere      as HTTP             for that machine, and nothing else
//! ```

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use watari_mesh::Way;
use watari_types::{MachineId, MachineName, NodeId};

use crate::node::Node;
use crate::{Error, Result};

/// How long the other node may take to say that it will.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether a machine went to another node.
const LOOK: Duration = Duration::from_millis(500);

/// Somebody comes who watches a machine from another node.
pub(crate) struct Visit {
    pub(crate) visitor: Visitor,
    /// What he says, and what he is answered.
    pub(crate) socket: UnixStream,
}

/// What such a one may see.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) machine: MachineId,
    pub(crate) name: MachineName,
    /// And whether he may do something to it.
    pub(crate) may_control: bool,
}

impl Node {
    /// Lets somebody in who watches a machine from another node, if it lives here: it is not passed on any further.
    pub(super) fn let_visit(
        &self,
        machine: MachineId,
        may_control: bool,
    ) -> Result<(UnixStream, MachineName)> {
        let unknown = || Error::BadRequest(format!("machine {machine} is not here"));
        let name = self.name_of(machine)?.ok_or_else(unknown)?;
        self.ensure_mine(machine)?;
        let (socket, theirs) = UnixStream::pair().map_err(Error::io("connect to", self.home.root()))?;
        let visit = Visit { visitor: Visitor { machine, name: name.clone(), may_control }, socket };
        let visits = self.visits.get().ok_or(Error::Closing)?;
        visits.blocking_send(visit).map_err(|_| Error::Closing)?;
        Ok((theirs, name))
    }

    /// The way to the node that a machine lives on, and what it is called there.
    pub(crate) async fn visit(
        &self,
        there: NodeId,
        machine: MachineId,
        may_control: bool,
    ) -> Result<(Way, MachineName)> {
        let mesh = self.mesh()?;
        let begun = tokio::time::timeout(PATIENCE, mesh.begin_watching(there, machine, may_control)).await;
        let late = |_| watari_mesh::Error::Unreachable { node: there, why: "it does not answer".to_owned() };
        Ok(begun.map_err(late)??)
    }

    /// Completes once a machine lives on another node: who watches it here has to ask again.
    pub(crate) async fn left(self: Arc<Self>, name: MachineName, machine: MachineId) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.live(&name).is_none() && self.runs_at(machine).is_some() {
                return;
            }
        }
    }
}
