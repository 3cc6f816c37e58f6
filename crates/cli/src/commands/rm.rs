//! `watari rm`

use clap::Args;
use watari_node::api::{Forgotten, Removed};
use watari_types::{MachineName, Rev};

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::bytes;

/// Remove a machine that does not run, with its history, or one snapshot of a machine
#[derive(Args)]
pub(crate) struct Rm {
    /// The machine, or the snapshot as NAME@GENERATION
    #[arg(value_name = "NAME|REV")]
    what: String,
}

impl Rm {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        if let Ok(Rev::At(name, _)) = self.what.parse() {
            return self.forget(context, &name);
        }
        let name = machine_name(&self.what)?;
        let removed: Removed = context.client()?.delete(&format!("machines/{name}"))?;
        context.out.result(&removed, |removed| {
            format!("{} is gone, {} freed", removed.name, bytes(removed.freed_bytes))
        })
    }

    fn forget(&self, context: &Context, name: &MachineName) -> Result<()> {
        let gone: Forgotten =
            context.client()?.delete(&format!("machines/{name}/snapshots/{}", self.what))?;
        context.out.result(&gone, |gone| {
            format!("{}@{} is gone; `watari gc` frees what it alone held", gone.name, gone.generation)
        })
    }
}
