//! `watari restore`

use clap::Args;
use watari_node::api::{Ready, RestoreRequest};

use super::Context;
use crate::failure::Result;
use crate::format::milliseconds;

/// Roll a machine back to a snapshot of its history, and run it
#[derive(Args)]
pub(crate) struct Restore {
    /// The snapshot
    rev: String,
}

impl Restore {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let client = context.client()?;
        let name = client.machine_of(&self.rev)?;
        let request = RestoreRequest { rev: self.rev.clone() };
        let ready: Ready = client.post_with(&format!("machines/{name}/restore"), &request)?;
        context.out.result(&ready, |ready| {
            let generation = ready.machine.generation.unwrap_or_default();
            format!("{name}@{generation} runs after {}", milliseconds(ready.ready_ms))
        })
    }
}
