//! `watari push`

use clap::Args;
use watari_node::api::{PushRequest, Pushed};
use watari_types::MemorySize;

use super::Context;
use crate::args::revision;
use crate::depots::Unlock;
use crate::failure::Result;
use crate::format::{bytes, count};

/// Put a snapshot into a depot or on another node: what is not there yet
#[derive(Args)]
#[command(long_about = "Put a snapshot into a depot or on another node: what is not there yet

A node of the mesh is meant by its name or the beginning of its id. A depot is a folder, a file ending in .tar, or s3://BUCKET/PREFIX with the bucket's key in AWS_ACCESS_KEY_ID and \
AWS_SECRET_ACCESS_KEY, and AWS_REGION, AWS_ENDPOINT_URL and so on as Amazon's own programs read them. It holds any number \
of machines and snapshots, each page once. After an interruption the same command goes on.")]
pub(crate) struct Push {
    /// The snapshot
    rev: String,
    /// The node or the depot
    #[arg(value_name = "NODE|DEPOT")]
    depot: String,
    /// To a node, send at most so much a second: 500K, 10M
    #[arg(long, value_name = "BYTES")]
    limit: Option<MemorySize>,
    #[command(flatten)]
    unlock: Unlock,
}

impl Push {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        let depot = self.unlock.depot(&self.depot)?;
        let limit_bytes_s = self.limit.map(|limit| limit.0);
        let request = PushRequest { rev: self.rev.clone(), depot, limit_bytes_s };
        let pushed: Pushed = context.client()?.post_with("push", &request)?;
        context.out.result(&pushed, |pushed| {
            format!(
                "{}@{} is in {}: {} sent, {}",
                pushed.name,
                pushed.generation,
                pushed.depot,
                count(pushed.pages_sent, "page"),
                bytes(pushed.bytes_sent)
            )
        })
    }
}
