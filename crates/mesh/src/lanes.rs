//! Further streams of an exchange: opened by whoever gives, and brought by their name to the one that takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use watari_types::NodeId;

use crate::Error;
use crate::exchange::{Inlet, Link};
use crate::mesh::Mesh;
use crate::wire::{self, Ask};

/// So many, that with what may be on its way over each there is no less than over the connection.
const LANES: usize = 16;

/// From whom, and what it calls them.
type Name = (NodeId, [u8; 16]);

/// The exchanges that are waiting for lanes.
#[derive(Default)]
pub(crate) struct Lanes {
    expected: Mutex<BTreeMap<Name, Inlet>>,
    changed: Notify,
}

/// While it is there, lanes of that name are taken.
pub(crate) struct Expected {
    lanes: Arc<Lanes>,
    name: Name,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.lanes.expected.lock().remove(&self.name);
    }
}

impl Lanes {
    /// Has what comes from that node over lanes of that name brought there.
    pub(crate) fn expect(self: &Arc<Self>, node: NodeId, name: [u8; 16], inlet: Inlet) -> Expected {
        let name = (node, name);
        self.expected.lock().insert(name, inlet);
        self.changed.notify_waiters();
        Expected { lanes: Arc::clone(self), name }
    }

    /// Where what comes over a lane is to be brought. It may come before it is expected.
    pub(crate) async fn inlet(&self, node: NodeId, name: [u8; 16]) -> Inlet {
        loop {
            let changed = self.changed.notified();
            if let Some(inlet) = self.expected.lock().get(&(node, name)) {
                return inlet.clone();
            }
            changed.await;
        }
    }
}

/// Opens lanes to a node.
pub(crate) async fn open(mesh: &Mesh, node: NodeId, name: [u8; 16], link: &mut Link) -> Result<(), Error> {
    let connection = mesh.0.peers.connected(node).ok_or_else(|| Error::cut("the connection is gone"))?;
    for _ in 0..LANES {
        let (mut send, _) = connection.open_bi().await.map_err(Error::cut)?;
        wire::say(&mut send, &mesh.0.options.program, &Ask::Lane { name }).await?;
        link.add_lane(&Handle::current(), send);
    }
    Ok(())
}
