//! The way to a machine's keyboard and pointer, which its keeper has.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use watari_keeper::client;
use watari_qemu::Input;
use watari_types::{ErrorKind, ErrorReport};

use crate::node::hold;
use crate::{Error, Result};

/// Leads to whatever keeper the machine has.
pub(crate) struct Touch {
    keeper: PathBuf,
    way: Arc<Mutex<Option<client::Touch>>>,
}

impl Touch {
    /// That of the machine whose keeper listens at that socket, to which nobody speaks before something is done.
    pub(super) fn new(keeper: PathBuf) -> Touch {
        Touch { keeper, way: Arc::default() }
    }

    /// Does something with them, and waits until it is done. Whoever stops waiting leaves nothing half said.
    ///
    /// # Errors
    /// It was not done: the guest is held, its pointer is of the other kind, or it is about to end.
    pub(super) async fn act(&self, input: Input) -> Result<()> {
        let (keeper, way) = (self.keeper.clone(), Arc::clone(&self.way));
        let acted = tokio::task::spawn_blocking(move || act(&mut hold(&way), &keeper, input)).await;
        Ok(acted.map_err(|e| Error::Internal(format!("a keyboard cannot be used: {e}")))??)
    }
}

fn act(way: &mut Option<client::Touch>, keeper: &Path, input: Input) -> Result<(), ErrorReport> {
    let outcome = try_to_act(way, keeper, input);
    if !outcome.as_ref().is_err_and(|error| error.kind == ErrorKind::NoKeeper) {
        return outcome;
    }
    // One that has died is replaced. What was said to it is said again: keys and buttons that are pressed twice are the same.
    *way = None;
    try_to_act(way, keeper, input)
}

fn try_to_act(way: &mut Option<client::Touch>, keeper: &Path, input: Input) -> Result<(), ErrorReport> {
    let way = match way {
        Some(way) => way,
        None => way.insert(client::Touch::open(keeper)?),
    };
    way.act(input)
}
