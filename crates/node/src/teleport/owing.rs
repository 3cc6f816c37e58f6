//! A machine that came before what it holds did: what it wants is passed on to the node that lends it, until all of it is here.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, Weak};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;
use watari_keeper::Loan;
use watari_keeper::protocol::{Request, Status};
use watari_keeper::record::Point;
use watari_types::{MachineId, MachineName, NodeId};

use crate::node::{Node, hold};
use crate::{Error, Result};

/// Those for whom something is passed on.
pub(crate) type Borrowers = Mutex<BTreeMap<MachineName, AbortHandle>>;

impl Node {
    /// Passes on what a machine's keeper wants of a node, from now on.
    pub(super) fn pass_wants(
        self: &Arc<Self>,
        name: &MachineName,
        machine: MachineId,
        from: NodeId,
    ) -> Result<()> {
        let path = self.home.machine(name).lender();
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(Error::io("listen on", &path))?;
        let passing = tokio::spawn(accept(Arc::downgrade(self), listener, machine, from));
        if let Some(before) = hold(&self.borrowers).insert(name.clone(), passing.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    /// No more of that.
    pub(super) fn pass_no_wants(&self, name: &MachineName) {
        if let Some(passing) = hold(&self.borrowers).remove(name) {
            passing.abort();
            let _ = fs::remove_file(self.home.machine(name).lender());
        }
    }

    /// Whether a machine that runs here waits for that snapshot.
    pub(crate) fn is_owed(&self, name: &MachineName, offer: &watari_mesh::exchange::Offer) -> bool {
        let loan = Loan::of(&self.home.machine(name));
        loan.is_ok_and(|loan| loan.is_some_and(|loan| loan.generation == offer.generation))
    }

    /// What was lent to a machine may be here now. Its lock is held.
    pub(super) fn repay(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let (home, file) = self.machine(name)?;
        let Some(loan) = Loan::of(&home)? else {
            self.pass_no_wants(name);
            return Ok(());
        };
        let Some(live) = self.live(name) else { return Ok(()) };
        let survey = self.store.refs(file.config.id).survey()?;
        let Some((generation, id)) = survey.snapshots.into_iter().find(|(g, _)| *g == loan.generation) else {
            if !hold(&self.borrowers).contains_key(name) {
                // It came to a daemon before this one.
                self.pass_wants(name, file.config.id, loan.from)?;
            }
            return Ok(());
        };
        self.ensure_trusted(id)?;
        let snapshot = Point { generation, id };
        live.set_status(self.ask::<Status>(name, &Request::Repay { snapshot }, &|_| {})?);
        self.pass_no_wants(name);
        Ok(())
    }

    /// The same for every machine.
    pub(crate) fn repay_all(self: &Arc<Self>) -> Result<()> {
        for name in self.home.machine_names()? {
            if self.home.machine(&name).lent().exists() || hold(&self.borrowers).contains_key(&name) {
                let _busy = self.blocking_lock(&name);
                if let Err(error) = self.repay(&name) {
                    tracing::error!(%name, error = &error as &dyn std::error::Error, "it does not take what came");
                }
            }
        }
        Ok(())
    }
}

async fn accept(node: Weak<Node>, listener: UnixListener, machine: MachineId, from: NodeId) {
    while let Ok((keeper, _)) = listener.accept().await {
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = pass_on(&node, keeper, machine, from).await {
                tracing::debug!(%machine, node = %from, "nothing is wanted of it any more: {error}");
            }
        });
    }
}

async fn pass_on(
    node: &Weak<Node>,
    keeper: UnixStream,
    machine: MachineId,
    from: NodeId,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mesh = node.upgrade().and_then(|node| node.in_mesh()).ok_or("this node is in no mesh")?;
    let way = mesh.begin_borrowing(from, machine).await?;
    Ok(way.pass_on(keeper.into_std()?).await?)
}
