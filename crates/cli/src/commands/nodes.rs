//! `watari nodes`

use clap::Args;
use watari_node::api::{MeshNode, NodeList, RemoveNodeRequest};

use super::Context;
use crate::failure::Result;
use crate::format::{bytes, milliseconds, short};
use crate::table::Table;

/// Show the nodes of the mesh, or take one out
#[derive(Args)]
pub(crate) struct Nodes {
    /// Take this node out, by its name or the beginning of its id: at once it can reach none of the others
    #[arg(long, value_name = "NODE")]
    remove: Option<String>,
}

impl Nodes {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let client = context.client()?;
        let list: NodeList = match &self.remove {
            Some(node) => client.post_with("nodes/remove", &RemoveNodeRequest { node: node.clone() })?,
            None => client.get("nodes")?,
        };
        context.out.result(&list, table)
    }
}

/// One row for each node.
pub(super) fn table(list: &NodeList) -> String {
    let mut table =
        Table::new(&["NAME", "ID", "STATE", "RTT", "ADDRESS", "VERSION", "STORE", "MACHINES"], &[3, 6]);
    for node in &list.nodes {
        table.row([
            if node.name.is_empty() { "-".to_owned() } else { node.name.clone() },
            short(node.id),
            node.state.clone(),
            node.rtt_ms.map_or("-".to_owned(), milliseconds),
            node.addr.clone(),
            node.version.clone(),
            node.store_bytes.map_or("-".to_owned(), bytes),
            machines(node),
        ]);
    }
    table.render()
}

fn machines(node: &MeshNode) -> String {
    let machine = |machine: &watari_node::api::HeldMachine| match machine.generation {
        Some(generation) => format!("{}@{generation} ({})", machine.name, machine.state),
        None => format!("{} ({})", machine.name, machine.state),
    };
    node.machines.iter().flatten().map(machine).collect::<Vec<_>>().join(", ")
}
