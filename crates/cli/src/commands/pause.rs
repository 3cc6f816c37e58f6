//! `watari pause`

use clap::Args;
use watari_node::api::MachineInfo;

use super::{Context, state_line};
use crate::args::machine_name;
use crate::failure::Result;

/// Hold a machine's guest
#[derive(Args)]
pub(crate) struct Pause {
    /// The machine
    name: String,
}

impl Pause {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let machine: MachineInfo = context.client()?.post(&format!("machines/{name}/pause"))?;
        context.out.result(&machine, state_line)
    }
}
