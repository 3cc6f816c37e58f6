//! `watari trust`

use clap::Args;
use watari_node::api::{TrustList, TrustRequest};
use watari_types::{ErrorKind, ErrorReport, NodeId};

use super::Context;
use crate::failure::Result;

/// Let another node's snapshots run here, or list whose may
///
/// What comes from a depot is checked, bit by bit, against the signature of the node that made it. Whether that node is one
/// you know only you can say: its id is what `watari up` prints there.
#[derive(Args)]
pub(crate) struct Trust {
    /// The node's id
    node: Option<String>,
    /// Trust it no longer
    #[arg(long, requires = "node")]
    remove: bool,
}

impl Trust {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let client = context.client()?;
        let list: TrustList = match &self.node {
            None => client.get("trust")?,
            Some(node) => {
                let node: NodeId = node.parse().map_err(|_| {
                    let hint = "a node's id is 64 hexadecimal digits; `watari up` prints it";
                    ErrorReport::new(ErrorKind::BadRequest, format!("{node:?} is no node's id"), hint)
                })?;
                client.post_with("trust", &TrustRequest { node, remove: self.remove })?
            }
        };
        context.out.result(&list, |list| match &list.trusted[..] {
            [] => "no other node is trusted".to_owned(),
            nodes => nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join("\n"),
        })
    }
}
