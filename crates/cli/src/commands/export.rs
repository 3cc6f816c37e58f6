//! `watari export`

use clap::Args;
use serde::Serialize;
use watari_node::api::{DepotRequest, PushRequest, Pushed};
use watari_types::{Generation, MachineName, SnapshotId};

use super::Context;
use crate::args::revision;
use crate::depots::Unlock;
use crate::failure::Result;
use crate::format::{bytes, count};

/// Write a snapshot to a folder or a single file: what is not there yet
#[derive(Args)]
#[command(long_about = "Write a snapshot to a folder or a single file: what is not there yet

PATH is a folder, or one file if it ends in .tar or is one already. It holds any number of machines and snapshots, each \
page once. It may be a USB stick that is pulled out: what was there before stays whole, and the same command goes on. \
`watari import` brings it back, here or on another computer.")]
pub(crate) struct Export {
    /// The snapshot
    rev: String,
    /// Where to
    path: String,
    #[command(flatten)]
    unlock: Unlock,
}

/// A snapshot that is there now.
#[derive(Serialize)]
struct Exported {
    name: MachineName,
    id: SnapshotId,
    generation: Generation,
    path: String,
    pages_written: u64,
    bytes_written: u64,
}

impl Export {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        let depot = DepotRequest { node: None, ..self.unlock.depot(&self.path)? };
        let request = PushRequest { rev: self.rev.clone(), depot, limit_bytes_s: None };
        let Pushed { name, id, generation, depot: path, pages_sent, bytes_sent } =
            context.client()?.post_with("push", &request)?;
        let exported =
            Exported { name, id, generation, path, pages_written: pages_sent, bytes_written: bytes_sent };
        context.out.result(&exported, |exported| {
            format!(
                "{}@{} is in {}: {} written, {}",
                exported.name,
                exported.generation,
                exported.path,
                count(exported.pages_written, "page"),
                bytes(exported.bytes_written)
            )
        })
    }
}
