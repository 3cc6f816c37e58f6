//! `watari list`

use clap::Args;
use watari_node::api::{MachineInfo, MachineList};
use watari_types::PAGE_SIZE;

use super::{Context, state_word};
use crate::failure::Result;
use crate::format::bytes;
use crate::table::Table;

/// Show the machines
#[derive(Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let list: MachineList = context.client()?.get("machines")?;
        context.out.result(&list, text)
    }
}

fn text(list: &MachineList) -> String {
    if list.machines.is_empty() {
        return "no machines yet; `watari create NAME --demo` makes one".to_owned();
    }
    let mut table = Table::new(&["NAME", "STATE", "GEN", "EPOCH", "MEMORY", "CPUS", "WHY"], &[2, 3, 4, 5]);
    for machine in &list.machines {
        table.row([
            machine.name.to_string(),
            state_word(machine.state).to_owned(),
            machine.generation.map_or("-".to_owned(), |generation| generation.to_string()),
            machine.epoch.to_string(),
            bytes(machine.memory_bytes),
            machine.cpus.to_string(),
            why(machine),
        ]);
    }
    table.render()
}

/// Why it is in that state, or what is still going on.
fn why(machine: &MachineInfo) -> String {
    let absent =
        machine.instance.as_ref().map_or(0, |instance| instance.absent_disk_pages) * PAGE_SIZE as u64;
    if absent == 0 {
        return machine.reason.clone();
    }
    let here = 100 - absent * 100 / machine.disk_bytes.iter().sum::<u64>().max(absent);
    let reason = if machine.reason.is_empty() { String::new() } else { format!("{}; ", machine.reason) };
    format!("{reason}{} of its disks still to be fetched ({here} % here)", bytes(absent))
}
