//! `watari log`

use clap::Args;
use watari_node::api::{SnapshotInfo, SnapshotList};
use watari_types::MachineName;

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::{age, short};
use crate::graph::draw;
use crate::table::Table;

/// Show a machine's snapshots, newest first, and which follows which
#[derive(Args)]
pub(crate) struct Log {
    /// The machine
    name: String,
}

impl Log {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let list: SnapshotList = context.client()?.get(&format!("machines/{name}/log"))?;
        context.out.result(&list, |list| text(&name, list))
    }
}

fn text(name: &MachineName, list: &SnapshotList) -> String {
    let mut text = if list.snapshots.is_empty() {
        format!("{name} has no snapshots; `watari checkpoint {name}` makes one while it runs")
    } else {
        let mut table = Table::new(&["", "GEN", "ID", "WHEN", "BRANCH", "PAGES", "TAGS", "MESSAGE"], &[1, 5]);
        let graph = draw(&list.snapshots);
        list.snapshots.iter().zip(graph).for_each(|(snapshot, line)| table.row(cells(snapshot, line)));
        table.render()
    };
    for damage in &list.damaged {
        text += &format!("\nnot listed: {damage}");
    }
    text
}

fn cells(snapshot: &SnapshotInfo, line: String) -> [String; 8] {
    let pages: u64 = snapshot.regions.iter().map(|region| region.changed_pages).sum();
    [
        line,
        snapshot.generation.to_string(),
        short(snapshot.id),
        age(snapshot.created_unix_ms),
        snapshot.branch.clone(),
        pages.to_string(),
        snapshot.tags.join(","),
        snapshot.message.clone(),
    ]
}
