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
    let (disk, ram) = machine.instance.as_ref().map_or((0, 0), |i| (i.absent_disk_pages, i.absent_ram_pages));
    let of_all = |what: &str, pages: u64, all: u64| {
        let absent = pages * PAGE_SIZE as u64;
        let here = 100 - absent * 100 / all.max(absent).max(1);
        (pages > 0).then(|| format!("{} of its {what} still to be fetched ({here} % here)", bytes(absent)))
    };
    let reason = (!machine.reason.is_empty()).then(|| machine.reason.clone());
    let memory = of_all("memory", ram, machine.memory_bytes);
    let disks = of_all("disks", disk, machine.disk_bytes.iter().sum());
    reason.into_iter().chain(memory).chain(disks).collect::<Vec<_>>().join("; ")
}
