//! `watari teleport`

use clap::Args;
use watari_node::api::{TeleportRequest, Teleported};

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::{bytes, count, milliseconds, short};

/// Move a running machine to another node of the mesh
///
/// What it holds is brought there while it runs; then its guest is held, the rest goes, and it goes on there. Should anything be
/// in the way, it goes on here. What stays here is the snapshot it went with, so that the way back is short.
#[derive(Args)]
pub(crate) struct Teleport {
    /// The machine
    name: String,
    /// The node, by its name or the beginning of its id
    node: String,
    /// Let the guest go on there at once; what it holds follows, what it needs first
    ///
    /// Until all of it is there, the machine needs both nodes: should the connection be cut, it waits. `watari show` there says
    /// how much is still to come. Should this node be lost, `watari restore` there goes back to the last snapshot that is there.
    #[arg(long)]
    lazy: bool,
}

impl Teleport {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let request = TeleportRequest { node: self.node.clone(), lazy: self.lazy };
        let moved: Teleported =
            context.client()?.post_with(&format!("machines/{name}/teleport"), &request)?;
        context.out.result(&moved, |moved| {
            let rest = if self.lazy { "; the rest follows" } else { "" };
            format!(
                "{} runs on node {} after {}, its guest held for {}: {} sent, {}{rest}",
                moved.name,
                short(moved.node),
                milliseconds(moved.total_ms),
                milliseconds(moved.downtime_ms),
                count(moved.pages_sent, "page"),
                bytes(moved.bytes_sent)
            )
        })
    }
}
