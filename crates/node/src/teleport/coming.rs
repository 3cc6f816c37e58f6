//! A machine that is coming: its keeper here takes what the one there sends, and nothing else is done with it meanwhile.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use watari_mesh::handover::Message;
use watari_types::{Epoch, MachineId, MachineName, NodeId};

use crate::node::{Busy, Node, hold};
use crate::{Error, Result};

/// The machines that are coming.
pub(crate) type Comings = Mutex<BTreeMap<MachineId, Coming>>;

/// How long a machine that has come is held here while nobody says what is to become of it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A machine on its way here, or one that has come and is held, or has not come. Dropped, it is free for others.
pub(crate) struct Coming {
    from: NodeId,
    epoch: Epoch,
    /// The other end of what its keeper hears.
    stream: UnixStream,
    /// Whether it has come, once that is known.
    outcome: mpsc::Receiver<Result<()>>,
    /// Nothing is said over it; it ends with this.
    _wanted: mpsc::Sender<()>,
    _busy: Arc<Mutex<Option<Busy>>>,
}

impl Coming {
    /// Has `bring` bring the machine here, on a thread of its own.
    pub(super) fn begin(
        node: &Arc<Node>,
        (from, machine, epoch): (NodeId, MachineId, Epoch),
        name: MachineName,
        busy: Busy,
        stream: UnixStream,
        bring: impl FnOnce(&Arc<Node>, &MachineName) -> Result<()> + Send + 'static,
    ) -> Result<Coming> {
        let (tell, outcome) = mpsc::channel();
        let (wanted, is_wanted) = mpsc::channel::<()>();
        let busy = Arc::new(Mutex::new(Some(busy)));
        let (node, held) = (Arc::clone(node), Arc::clone(&busy));
        let work = move || {
            let came = bring(&node, &name);
            let is_here = came.is_ok();
            if let Err(error) = &came {
                tracing::warn!(%name, "it did not come: {}", error.report());
                // Whoever asks is still told why; but nobody may ask.
                let done = node.did_not_come(&name);
                done.unwrap_or_else(|error| tracing::error!(%name, "{}", error.report()));
                hold(&held).take();
            }
            let _ = tell.send(came);
            if is_here && is_wanted.recv_timeout(FORGOTTEN) == Err(mpsc::RecvTimeoutError::Timeout) {
                node.forget_coming(machine, epoch);
            }
        };
        std::thread::Builder::new()
            .name("coming".to_owned())
            .spawn(work)
            .map_err(Error::io("start a thread for", Path::new("a machine that comes")))?;
        Ok(Coming { from, epoch, stream, outcome, _wanted: wanted, _busy: busy })
    }

    /// Waits until it is known whether it has come. Unless it was to be loaded, it does not have to.
    pub(super) fn outcome(&self, message: Message) -> Result<()> {
        if !matches!(message, Message::Commit(_)) {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        self.outcome
            .recv()
            .unwrap_or_else(|_| Err(Error::Internal("a machine was lost on its way".to_owned())))
    }
}

impl Node {
    /// Takes what is known of a machine that comes, if this is about that.
    pub(super) fn coming(&self, from: NodeId, machine: MachineId, message: Message) -> Option<Coming> {
        if !matches!(message, Message::Commit(_) | Message::Abort(_) | Message::Ask(_)) {
            return None;
        }
        self.take_coming(machine, |coming| (coming.from, coming.epoch) == (from, message.epoch()))
    }

    fn take_coming(&self, machine: MachineId, is_meant: impl Fn(&Coming) -> bool) -> Option<Coming> {
        let mut all = hold(&self.coming);
        let coming = all.remove(&machine)?;
        if is_meant(&coming) {
            return Some(coming);
        }
        all.insert(machine, coming);
        None
    }

    /// Gives up a machine that has come and that nobody has said anything about since. Whoever offered it is told if it asks.
    fn forget_coming(self: &Arc<Self>, machine: MachineId, epoch: Epoch) {
        let Some(_coming) = self.take_coming(machine, |coming| coming.epoch == epoch) else { return };
        let actions = self.with_tenure(machine, watari_mesh::handover::Tenure::abort);
        if let Err(error) = actions.and_then(|actions| self.carry_out(machine, actions)) {
            tracing::error!(%machine, "what came stays held: {}", error.report());
        }
    }
}
