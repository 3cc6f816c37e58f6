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
}

impl Teleport {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let request = TeleportRequest { node: self.node.clone() };
        let moved: Teleported =
            context.client()?.post_with(&format!("machines/{name}/teleport"), &request)?;
        context.out.result(&moved, |moved| {
            format!(
                "{} runs on node {} after {}, its guest held for {}: {} sent, {}",
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
