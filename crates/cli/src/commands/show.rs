//! `watari show`

use clap::Args;
use watari_node::api::{MachineInfo, Shown, SnapshotInfo};

use super::{Context, state_line};
use crate::args::revision;
use crate::failure::Result;
use crate::format::{age, bytes};
use crate::table::Table;

/// Show a snapshot, and the machine it belongs to
#[derive(Args)]
pub(crate) struct Show {
    /// The snapshot
    rev: String,
}

impl Show {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        let shown: Shown = context.client()?.get(&format!("snapshots/{}", self.rev))?;
        context.out.result(&shown, |shown| {
            let machine = shown.machine.as_ref().map(machine_text);
            let snapshot = shown.snapshot.as_ref().map(snapshot_text);
            machine.into_iter().chain(snapshot).collect::<Vec<_>>().join("\n")
        })
    }
}

fn machine_text(machine: &MachineInfo) -> String {
    let mut table = Table::new(&["machine", &state_line(machine)], &[]);
    let mut row = |key: &str, value: String| table.row([key.to_owned(), value]);
    row("id", machine.id.to_string());
    row("memory", bytes(machine.memory_bytes));
    row("cpus", machine.cpus.to_string());
    for size in &machine.disk_bytes {
        row("disk", bytes(*size));
    }
    if let Some(origin) = &machine.origin {
        row("clone of", format!("{} ({})", origin.name, origin.snapshot));
    }
    if let Some(instance) = &machine.instance {
        row("runs on", format!("{}, process {}", instance.accelerator, instance.qemu_pid));
        row("tracker", instance.tracker.clone());
        let absent = instance.absent_disk_pages + instance.absent_ram_pages;
        row("to fetch", bytes(absent * watari_types::PAGE_SIZE as u64));
    }
    row("folder", machine.folder.display().to_string());
    table.render()
}

fn snapshot_text(snapshot: &SnapshotInfo) -> String {
    let mut table = Table::new(&["snapshot", &snapshot.id.to_string()], &[]);
    let mut row = |key: &str, value: String| table.row([key.to_owned(), value]);
    row("generation", snapshot.generation.to_string());
    row("taken", age(snapshot.created_unix_ms));
    row("epoch", snapshot.epoch.to_string());
    row("branch", snapshot.branch.clone());
    row("message", snapshot.message.clone());
    row("tags", snapshot.tags.join(", "));
    row("parent", snapshot.parent.map_or("-".to_owned(), |parent| parent.to_string()));
    row("node", snapshot.node.to_string());
    row("qemu", format!("{}, {}", snapshot.qemu_version, snapshot.accelerator));
    row("devices", bytes(snapshot.device_state_bytes));
    for region in &snapshot.regions {
        row(&region.name, format!("{}, {} pages changed", bytes(region.bytes), region.changed_pages));
    }
    table.render()
}
