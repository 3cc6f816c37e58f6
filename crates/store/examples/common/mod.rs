//! What several measurements need: a machine of nothing but regions, chance that is the same every time, and collecting.

use std::collections::BTreeSet;
use std::time::Duration;

use watari_store::{Collected, Collecting, SnapshotDraft, Store};
use watari_types::{Boot, Epoch, Generation, MachineConfig, MachineId, Region, SnapshotId};

pub(crate) const MACHINE: MachineId = MachineId([1; 16]);

/// Not everyone leaves something to it.
#[allow(dead_code, reason = "the measurements share this file")]
pub(crate) struct Random(pub(crate) u64);

#[allow(dead_code, reason = "likewise")]
impl Random {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32 % end
    }
}

pub(crate) fn draft(generation: u64, parent: Option<SnapshotId>, regions: &[Region]) -> SnapshotDraft {
    SnapshotDraft {
        config: MachineConfig {
            id: MACHINE,
            memory_bytes: 1 << 30,
            cpus: 1,
            machine_type: "pc-q35-8.2".to_owned(),
            cpu_model: "x86-64-v2".to_owned(),
            device_layout: 1,
            boot: Boot::Disk,
            disks: vec![],
            nics: vec![],
        },
        machine_name: "m".parse().unwrap(),
        parent,
        generation: Generation(generation),
        epoch: Epoch(1),
        branch: "main".to_owned(),
        created_unix_ms: 0,
        message: String::new(),
        regions: regions.to_vec(),
        qemu_version: String::new(),
        accelerator: "kvm".to_owned(),
        origin: None,
        has_memory: true,
    }
}

/// Removes what nothing needs.
pub(crate) fn collect(store: &Store) -> Collected {
    let how = Collecting {
        also: &Vec::new,
        patience: Duration::from_secs(60),
        progress: &|_, _, _| (),
        without: &BTreeSet::new(),
    };
    store.collect(&how).unwrap()
}
