//! `watari resume`

use clap::Args;
use watari_node::api::MachineInfo;

use super::{Context, state_line};
use crate::args::machine_name;
use crate::failure::Result;

/// Let a guest that is held go on
#[derive(Args)]
pub(crate) struct Resume {
    /// The machine
    name: String,
}

impl Resume {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let machine: MachineInfo = context.client()?.post(&format!("machines/{name}/resume"))?;
        context.out.result(&machine, state_line)
    }
}
