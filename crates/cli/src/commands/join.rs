//! `watari join`

use clap::Args;
use watari_node::api::{JoinRequest, NodeList};

use super::Context;
use super::nodes::table;
use crate::failure::Result;

/// Join the mesh of the node that made a ticket
///
/// From then on this node listens for the others, their machines may run here and this node's there.
#[derive(Args)]
pub(crate) struct Join {
    /// What `watari invite` printed there
    ticket: String,
}

impl Join {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let request = JoinRequest { ticket: self.ticket.clone() };
        let list: NodeList = context.client()?.post_with("nodes/join", &request)?;
        context.out.result(&list, table)
    }
}
