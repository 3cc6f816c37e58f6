//! `watari restore`

use clap::Args;
use watari_node::api::{RestoreRequest, Restored};

use super::Context;
use crate::failure::Result;
use crate::format::milliseconds;

/// Roll a machine back to a snapshot of its history, and run it
///
/// What the machine leaves behind is kept as a snapshot, so that this can be undone by restoring that one. Of a machine
/// that does not run these are its disks, if they have changed since its last snapshot.
#[derive(Args)]
pub(crate) struct Restore {
    /// The snapshot
    rev: String,
    /// Do not keep what the machine leaves behind
    #[arg(long)]
    discard: bool,
}

impl Restore {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let client = context.client()?;
        let name = client.machine_of(&self.rev)?;
        let request = RestoreRequest { rev: self.rev.clone(), discard: self.discard };
        let restored: Restored = client.post_with(&format!("machines/{name}/restore"), &request)?;
        context.out.result(&restored, |Restored { ready, kept }| {
            let generation = ready.machine.generation.unwrap_or_default();
            let undo = kept.map_or(String::new(), |kept| {
                format!("; `watari restore {name}@{}` goes back to what it left", kept.generation)
            });
            format!("{name}@{generation} runs after {}{undo}", milliseconds(ready.ready_ms))
        })
    }
}
