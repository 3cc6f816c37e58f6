//! `watari checkpoint`

use clap::Args;
use watari_node::api::{CheckpointInfo, CheckpointRequest};

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::{bytes, count, milliseconds, short};

/// Capture a machine while it runs
#[derive(Args)]
pub(crate) struct Checkpoint {
    /// The machine
    name: String,
    /// What to write into its history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// A name for this snapshot
    #[arg(short, long)]
    tag: Option<String>,
}

impl Checkpoint {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let request = CheckpointRequest { message: self.message.clone(), tag: self.tag.clone() };
        let done: CheckpointInfo =
            context.client()?.post_with(&format!("machines/{name}/checkpoint"), &request)?;
        context.out.result(&done, |done| {
            format!(
                "{name}@{} is {}: paused {} of {}, {} of memory and {} of disk changed, {} kept",
                done.generation,
                short(done.id),
                milliseconds(done.pause_ms),
                milliseconds(done.total_ms),
                count(done.ram_pages, "page"),
                count(done.disk_pages, "page"),
                bytes(done.stored_bytes),
            )
        })
    }
}
