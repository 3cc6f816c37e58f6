//! `watari rm`

use clap::Args;
use watari_node::api::Removed;

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::bytes;

/// Remove a machine that does not run, with its history
#[derive(Args)]
pub(crate) struct Rm {
    /// The machine
    name: String,
}

impl Rm {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let removed: Removed = context.client()?.delete(&format!("machines/{name}"))?;
        context.out.result(&removed, |removed| {
            format!("{} is gone, {} freed", removed.name, bytes(removed.freed_bytes))
        })
    }
}
