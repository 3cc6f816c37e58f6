//! `watari pull`

use clap::Args;
use watari_node::api::{PullRequest, Pulled};

use super::Context;
use super::import::text;
use crate::args::{machine_name, revision};
use crate::depots::Unlock;
use crate::failure::Result;

/// Take a snapshot from a depot or another node: what is not here yet
///
/// Its machine becomes one of this node's, suspended at that snapshot. If it is here already, the snapshot is added to its
/// history, and `watari restore` goes to it.
#[derive(Args)]
pub(crate) struct Pull {
    /// The snapshot, as it is called there
    rev: String,
    /// A node of the mesh, or a depot: a folder, a file, or s3://BUCKET/PREFIX
    #[arg(value_name = "NODE|DEPOT")]
    depot: String,
    /// What the machine is to be called here
    name: Option<String>,
    #[command(flatten)]
    unlock: Unlock,
}

impl Pull {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        self.name.as_deref().map(machine_name).transpose()?;
        let depot = self.unlock.depot(&self.depot)?;
        let request = PullRequest { depot, rev: Some(self.rev.clone()), name: self.name.clone() };
        let pulled: Pulled = context.client()?.post_with("pull", &request)?;
        context.out.result(&pulled, text)
    }
}
