//! `watari kill`

use clap::Args;
use watari_node::api::MachineInfo;

use super::{Context, state_line};
use crate::args::machine_name;
use crate::failure::Result;

/// End a machine at once, as if its power failed
#[derive(Args)]
pub(crate) struct Kill {
    /// The machine
    name: String,
}

impl Kill {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let machine: MachineInfo = context.client()?.post(&format!("machines/{name}/kill"))?;
        context.out.result(&machine, state_line)
    }
}
