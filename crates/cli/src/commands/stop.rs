//! `watari stop`

use clap::Args;
use watari_node::api::{MachineInfo, StopRequest};

use super::{Context, state_line};
use crate::args::machine_name;
use crate::failure::Result;

/// Ask a machine's guest to power off, and wait until it has
#[derive(Args)]
pub(crate) struct Stop {
    /// The machine
    name: String,
    /// How many seconds the guest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u32,
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let request = StopRequest { limit_ms: u64::from(self.limit) * 1000 };
        let machine: MachineInfo = context.client()?.post_with(&format!("machines/{name}/stop"), &request)?;
        context.out.result(&machine, state_line)
    }
}
