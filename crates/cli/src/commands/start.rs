//! `watari start`

use clap::Args;
use watari_node::api::Ready;

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::milliseconds;

/// Run a machine: boot it, or resume it where it was suspended
#[derive(Args)]
pub(crate) struct Start {
    /// The machine
    name: String,
}

impl Start {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let ready: Ready = context.client()?.post(&format!("machines/{name}/start"))?;
        context.out.result(&ready, |ready| format!("{name} runs after {}", milliseconds(ready.ready_ms)))
    }
}
