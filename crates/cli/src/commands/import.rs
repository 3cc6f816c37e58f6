//! `watari import`

use clap::Args;
use watari_node::api::{DepotRequest, PullRequest, Pulled};

use super::Context;
use crate::args::machine_name;
use crate::depots::Unlock;
use crate::failure::Result;
use crate::format::{bytes, count};

/// Bring back a machine from a folder or a file that `watari export` wrote
///
/// With all its snapshots there, and suspended at the newest. If it is here already, those it does not have are added to
/// its history, and `watari restore` goes to them.
#[derive(Args)]
pub(crate) struct Import {
    /// The folder or the file
    path: String,
    /// What the machine is to be called here, or which of several there is meant
    name: Option<String>,
    #[command(flatten)]
    unlock: Unlock,
}

impl Import {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        self.name.as_deref().map(machine_name).transpose()?;
        let depot = DepotRequest { node: None, ..self.unlock.depot(&self.path)? };
        let request = PullRequest { depot, rev: None, name: self.name.clone() };
        let pulled: Pulled = context.client()?.post_with("pull", &request)?;
        context.out.result(&pulled, text)
    }
}

/// What has come, and what to do next.
pub(super) fn text(pulled: &Pulled) -> String {
    let Pulled { name, generation, .. } = pulled;
    let came = format!(
        "{} of {name}, {} and {} new",
        count(pulled.snapshots, "snapshot"),
        count(pulled.pages_received, "page"),
        bytes(pulled.bytes_written)
    );
    let next = match pulled.is_new {
        true => format!("`watari start {name}` goes on from {name}@{generation}"),
        false => format!("`watari restore {name}@{generation}` goes to the newest"),
    };
    let mut text = format!("{came}; {next}");
    for node in &pulled.untrusted {
        text +=
            &format!("\nfrom node {node}, which is not trusted here: `watari trust {node}` if you know it");
    }
    text
}
