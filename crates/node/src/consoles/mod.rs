//! This node's machines' serial consoles, for all who use them.
//!
//! ```text
//!              ┌───────────── Console: one for each machine whose console is used ─────────────┐
//!  QEMU ──────►│ Hub: the one connection that QEMU serves ──► Line: what was printed last ──► say ──► each who is attached
//!       ◄──────│                                        ◄── what is typed ◄──────────────── hear ◄──
//!              └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nobody has a queue of what is printed: each who is attached takes it from the line's last bytes at its own speed, and whoever is
//! slower than those are replaced begins anew with the newest. So QEMU is always listened to, and the guest never waits for anybody.
//! A console outlives the machine's runs, and holds QEMU's socket only while somebody is attached.

mod attend;
mod hub;
mod log;
mod recent;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use axum::body::Bytes;
use tokio::sync::{mpsc, watch};
use watari_qemu::SERIAL_SOCKET;
use watari_types::MachineName;

pub(crate) use self::attend::attend;

use self::hub::Hub;
use self::recent::Recent;
use crate::api::ConsoleState;
use crate::node::{Doing, Node, hold};

/// The consoles that are used.
#[derive(Default)]
pub(crate) struct Consoles(Mutex<HashMap<MachineName, Weak<Console>>>);

/// One machine's console, for as long as somebody holds it.
pub(crate) struct Console {
    line: watch::Receiver<Line>,
    typed: mpsc::Sender<Bytes>,
}

/// What everybody who is attached is told.
struct Line {
    recent: Recent,
    state: ConsoleState,
}

/// Where a machine's console is found.
struct Place {
    /// QEMU's socket, while it runs.
    socket: PathBuf,
    /// What all runs of it printed.
    log: PathBuf,
    /// What the machine is doing.
    doing: Box<dyn Fn() -> Doing + Send + Sync>,
}

impl Consoles {
    /// The machine's console.
    pub(crate) fn console(&self, node: &Arc<Node>, machine: &MachineName) -> Arc<Console> {
        let mut consoles = hold(&self.0);
        consoles.retain(|_, console| console.strong_count() > 0);
        if let Some(console) = consoles.get(machine).and_then(Weak::upgrade) {
            return console;
        }
        let (home, node, name) = (node.home.machine(machine), Arc::clone(node), machine.clone());
        let place = Place {
            socket: home.socket(SERIAL_SOCKET),
            log: home.log("serial"),
            doing: Box::new(move || node.doing(&name)),
        };
        let console = Arc::new(Hub::begin(place));
        consoles.insert(machine.clone(), Arc::downgrade(&console));
        console
    }
}
