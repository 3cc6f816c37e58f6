//! `watari resume`

use clap::Args;
use watari_node::api::{MachineInfo, ResumeRequest};

use super::{Context, state_line};
use crate::args::machine_name;
use crate::failure::Result;

/// Let a guest that is held go on
///
/// With --here a machine that was handed over to another node is taken back. Only you can say that it does not run there: should
/// it do so after all, it is held there as soon as the two nodes hear of each other.
#[derive(Args)]
pub(crate) struct Resume {
    /// The machine
    name: String,
    /// Take it back from the node it was handed over to, which does not run it any more
    #[arg(long)]
    here: bool,
}

impl Resume {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let machine: MachineInfo = context
            .client()?
            .post_with(&format!("machines/{name}/resume"), &ResumeRequest { here: self.here })?;
        context.out.result(&machine, state_line)
    }
}
