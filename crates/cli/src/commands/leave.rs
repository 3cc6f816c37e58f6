//! `watari leave`

use clap::Args;
use watari_node::api::Left;

use super::Context;
use crate::failure::Result;

/// Leave the mesh; machines and snapshots stay where they are
#[derive(Args)]
pub(crate) struct Leave {}

impl Leave {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let left: Left = context.client()?.post("nodes/leave")?;
        context.out.result(&left, |left| match left.told {
            true => "this node has left the mesh".to_owned(),
            false => "this node has left the mesh, and nobody was there to be told: `watari nodes --remove` on another node \
                      takes it out"
                .to_owned(),
        })
    }
}
