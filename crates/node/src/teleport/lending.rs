//! A machine that left before what it holds did. Its guest is held here, and what it has is given to whoever runs it now, page by
//! page as it is wanted; meanwhile it is captured, and the snapshot sent. Once that is there, the guest here is ended.
//!
//! All of it is written down first, and gone on with by the next daemon: `machines/NAME/lending.json` is there from before the
//! guest is held until it goes on here, or is ended.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use watari_keeper::client;
use watari_keeper::home::MachineHome;
use watari_keeper::protocol::{Checkpointed, Request};
use watari_keeper::record::{Point, load_json, save_json};
use watari_mesh::exchange;
use watari_mesh::handover::Standing;
use watari_store::Parcel;
use watari_types::{ErrorKind, Generation, MachineId, MachineName, NodeId};

use crate::node::{Node, hold};
use crate::{Error, Result};

/// To whom a machine is lent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Lending {
    to: NodeId,
    /// The newest snapshot before. The one after it is of what is lent.
    before: Option<Generation>,
}

impl Lending {
    fn of(home: &MachineHome) -> Result<Option<Lending>> {
        let path = file(home);
        if path.exists() { Ok(Some(load_json(&path)?)) } else { Ok(None) }
    }
}

fn file(home: &MachineHome) -> PathBuf {
    home.folder().join("lending.json")
}

impl Node {
    /// Writes down that what a machine holds is lent to a node, before it is.
    pub(super) fn begin_lending(&self, name: &MachineName, to: NodeId) -> Result<()> {
        let (home, machine) = self.machine(name)?;
        let before = self.store.refs(machine.config.id).newest()?;
        Ok(save_json(&file(&home), &Lending { to, before })?)
    }

    /// Whether what a machine holds is lent.
    pub(super) fn is_lending(&self, name: &MachineName) -> bool {
        file(&self.home.machine(name)).exists()
    }

    /// It is not, any more.
    pub(super) fn end_lending(&self, name: &MachineName) -> Result<()> {
        let path = file(&self.home.machine(name));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Where the keeper of a machine that was lent to a node listens for what is wanted of it.
    pub(crate) fn lend(&self, to: NodeId, machine: MachineId) -> Result<UnixStream> {
        let name = self.name_of(machine)?;
        let is_lent = |name: &MachineName| {
            let lending = Lending::of(&self.home.machine(name));
            lending.is_ok_and(|lending| lending.is_some_and(|lending| lending.to == to))
        };
        match name.filter(is_lent) {
            Some(name) => Ok(client::begin_lending(&self.home.machine(&name).socket("keeper"))?),
            None => Err(Error::BadRequest(format!("machine {machine} is not lent to node {to}"))),
        }
    }

    /// Sends everything that was lent, on a thread of its own.
    pub(super) fn send_lent(self: &Arc<Self>, name: &MachineName) {
        if !hold(&self.sending_lent).insert(name.clone()) {
            return;
        }
        let (node, name) = (self.clone(), name.clone());
        Handle::current().spawn_blocking(move || {
            if let Err(error) = node.send_what_was_lent(&name) {
                tracing::warn!(%name, "what was lent is not all there: {}", error.report());
            }
            hold(&node.sending_lent).remove(&name);
        });
    }

    /// The same for every machine that is lent.
    pub(super) fn send_all_lent(self: &Arc<Self>) -> Result<()> {
        let names = self.home.machine_names()?;
        names.iter().filter(|name| self.is_lending(name)).for_each(|name| self.send_lent(name));
        Ok(())
    }

    fn send_what_was_lent(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        let (home, file) = self.machine(name)?;
        let (machine, Some(lending)) = (file.config.id, Lending::of(&home)?) else { return Ok(()) };
        if !self.is_gone(machine)? {
            // What is to become of it is not known, or is about to be.
            return Ok(());
        }
        let point = match self.captured(machine, &lending)? {
            Some(point) => point,
            None if self.running(name).is_ok() => {
                let message = format!("left for {}", lending.to);
                let done: Checkpointed =
                    self.ask(name, &Request::Checkpoint { message, tag: None }, &|_| {})?;
                Point { generation: done.generation, id: done.id }
            }
            None => {
                tracing::error!(%name, node = %lending.to, "it is lost what was lent: nothing holds it any more");
                return self.done_lending(name, machine);
            }
        };
        // A person may have taken it back, and what was captured is what came of that.
        if !self.is_lending(name) || !self.is_gone(machine)? {
            return Ok(());
        }
        let mut link = Handle::current().block_on(self.mesh()?.begin_giving(lending.to, None))?;
        let parcel = Parcel { machine, generation: point.generation, id: point.id, tags: &[] };
        match exchange::give(&mut link, &self.store, &parcel, name, &|_| ()) {
            Ok(given) => {
                tracing::info!(%name, node = %lending.to, pages = given.pages, "all that was lent is there");
            }
            // It runs there from a snapshot of its own: nobody needs this one.
            Err(watari_mesh::Error::Refused(report)) if report.kind == ErrorKind::WrongState => {
                tracing::info!(%name, node = %lending.to, "what was lent is not wanted any more");
            }
            Err(error) => return Err(error.into()),
        }
        self.done_lending(name, machine)
    }

    fn is_gone(&self, machine: MachineId) -> Result<bool> {
        self.with_tenure(machine, |tenure| matches!(tenure.record().standing, Standing::Elsewhere(_)))
    }

    /// The snapshot of what is lent, if it was made.
    fn captured(&self, machine: MachineId, lending: &Lending) -> Result<Option<Point>> {
        let head = self.store.refs(machine).head()?;
        let head = head.filter(|head| Some(head.generation) > lending.before);
        Ok(head.map(|head| Point { generation: head.generation, id: head.id }))
    }

    fn done_lending(self: &Arc<Self>, name: &MachineName, machine: MachineId) -> Result<()> {
        let _busy = self.blocking_lock(name);
        if self.is_lending(name) && self.is_gone(machine)? {
            self.end_lending(name)?;
            self.discard(name)?;
        }
        Ok(())
    }
}
