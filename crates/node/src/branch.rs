//! Going back and branching off: `restore` and `clone`.
//!
//! Both check everything they can (that the snapshot's whole chain of deltas can be read, that memory suffices)
//! before they end or create anything.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use watari_keeper::home::MachineHome;
use watari_keeper::protocol::{MemoryFrom, Start};
use watari_keeper::record::{MachineFile, MachineState, NetworkStart, Phase, Point};
use watari_qemu::GDB_SOCKET;
use watari_store::{Origin, Snapshot};
use watari_types::{
    Boot, ErrorKind, ErrorReport, MachineConfig, MachineId, MachineName, PAGE_SIZE, PageTable, Region,
    RegionName, Retention, SnapshotId,
};

use crate::api::{CloneNetwork, CloneRequest, Cloned, Kept, RestoreRequest, Restored};
use crate::create::{boot_file, now_unix_ms, random_id, random_mac, sync};
use crate::network::{Cable, network_after_rollback};
use crate::node::{Node, OnProgress, hold};
use crate::{Error, Result};

impl Node {
    /// Rolls a machine back to a snapshot of its history and runs it. What it leaves behind is kept, unless it is to be
    /// discarded.
    pub(crate) fn restore(
        self: &Arc<Self>,
        name: &MachineName,
        request: &RestoreRequest,
        arrived: Instant,
        progress: OnProgress,
    ) -> Result<Restored> {
        let (home, file) = self.machine(name)?;
        self.ensure_mine(file.config.id)?;
        let (generation, snapshot) = self.in_history(name, &request.rev)?;
        self.ensure_trusted(snapshot)?;
        let header = self.store.snapshot(snapshot)?;
        let cable = Cable::load(&home)?;
        let network = network_after_rollback(cable, &file.config, &header);
        let is_plugged_wrongly = network == NetworkStart::Fresh && cable == Some(Cable { plugged: false });
        self.settle(name)?;
        let returned = self.live(name).map_or(0, |_| file.config.memory_bytes);
        self.ensure_memory(name, file.config.memory_bytes, returned)?;
        self.ensure_accelerator(&self.qemu()?, progress)?;
        let keep = (!request.discard).then(|| format!("before restoring {name}@{generation}"));
        let left = self.leave(name, snapshot, keep, progress)?;
        tracing::debug!(%name, since_request = ?arrived.elapsed(), "nothing runs any more");
        let from = if left.memory.is_some() { MemoryFrom::StandardInput } else { MemoryFrom::Store };
        let start = Start::Resume { snapshot, generation, network, memory: from, held: false, gdb: false };
        self.run_keeper(name, &start, left.memory.map(OwnedFd::from), progress)?;
        if is_plugged_wrongly {
            self.unplug(name)?;
        }
        Ok(Restored { ready: self.ready(name, arrived)?, kept: left.kept.map(Kept::from) })
    }

    /// Makes a new machine of a snapshot. The caller holds the lock of its name.
    pub(crate) fn clone_machine(
        self: &Arc<Self>,
        name: &MachineName,
        request: &CloneRequest,
        arrived: Instant,
        progress: OnProgress,
    ) -> Result<Cloned> {
        self.ensure_free(name)?;
        if request.gdb && request.network == CloneNetwork::Fresh {
            return Err(Error::BadRequest(
                "a guest that is held for a debugger cannot exchange its network card; `watari network NAME fresh` does \
                 once it runs"
                    .to_owned(),
            ));
        }
        let rev = &request.rev;
        let lease = self.store.lease()?;
        let found = self.resolve(rev)?;
        let snapshot = self.with_memory(rev, found.id)?;
        let id = random_id()?;
        let built = self.build(name, |home| {
            let tables = self.store.page_tables(found.id)?;
            self.furnish_boot(home, &snapshot.draft.config, &tables)?;
            let original =
                self.name_of(snapshot.draft.config.id)?.map(|name| self.machine(&name)).transpose()?;
            let bridge = original.and_then(|(_, file)| file.bridge);
            let (file, state) = clone_records(id, name, &snapshot, request.network)?;
            let file = MachineFile { bridge, ..file };
            let cable = match request.network {
                CloneNetwork::Unplugged => Some(Cable { plugged: false }),
                CloneNetwork::Fresh => Some(Cable { plugged: true }),
                CloneNetwork::Same => None,
            };
            cable.map_or(Ok(()), |cable| cable.save(home))?;
            let refs = self.store.refs(id);
            refs.add(snapshot.draft.generation, snapshot.id, &lease)?;
            refs.set_head(snapshot.draft.generation, snapshot.id, &lease)?;
            Ok((file, state))
        });
        if let Err(error) = built {
            self.store.refs(id).remove_all()?;
            return Err(error);
        }
        let ready = if request.start || request.gdb {
            self.start_for(name, request.gdb, arrived, progress)?
        } else {
            self.ready(name, arrived)?
        };
        let gdb = request.gdb.then(|| self.home.machine(name).socket(GDB_SOCKET));
        Ok(Cloned { ready, gdb })
    }

    /// The snapshot that `rev` names, which must have memory, and be from someone who is trusted.
    pub(crate) fn with_memory(&self, rev: &str, id: SnapshotId) -> Result<Snapshot> {
        let snapshot = self.store.snapshot(id)?;
        if snapshot.draft.has_memory {
            return self.ensure_trusted(id).map(|()| snapshot);
        }
        Err(Error::BadRevision {
            rev: rev.to_owned(),
            problem: "holds no memory".to_owned(),
            hint: "choose a snapshot of the running machine".to_owned(),
        })
    }

    /// Puts kernel and initial ramdisk into a clone's folder: linked to the original's, which never change, or
    /// else from the store.
    pub(crate) fn furnish_boot(
        &self,
        home: &MachineHome,
        config: &MachineConfig,
        tables: &BTreeMap<RegionName, PageTable>,
    ) -> Result<()> {
        let Boot::Kernel { kernel, initrd, .. } = &config.boot else { return Ok(()) };
        let original = self.name_of(config.id)?.map(|name| self.home.machine(&name));
        for region in std::iter::once(kernel).chain(initrd) {
            let (_, to) = boot_file(home, region.name.as_str())?;
            let from = original.as_ref().map(|home| home.boot_file(region.name.rest()));
            let is_linked = from.is_some_and(|from| {
                fs::metadata(&from).is_ok_and(|found| found.len() == region.bytes)
                    && fs::hard_link(&from, &to).is_ok()
            });
            if !is_linked {
                let table = tables.get(&region.name).ok_or_else(|| missing(region))?;
                self.write_region(region, table, &to)?;
            }
        }
        Ok(())
    }

    fn write_region(&self, region: &Region, table: &PageTable, to: &Path) -> Result<()> {
        let file = fs::File::create(to).map_err(Error::io("create", to))?;
        file.set_len(region.bytes).map_err(Error::io("size", to))?;
        let file = Mutex::new(BufWriter::new(file));
        let last = region.bytes;
        self.store.read_pages(table.iter(), 1, &|page, bytes| {
            let start = u64::from(page) * PAGE_SIZE as u64;
            // The last page is padded with zeros that are no part of the file.
            let length = (bytes.len() as u64).min(last.saturating_sub(start)) as usize;
            let mut file = hold(&file);
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&bytes[..length])
        })?;
        hold(&file).flush().map_err(Error::io("write", to))?;
        sync(to)
    }
}

/// What is written down about a machine that continues from another one's snapshot.
fn clone_records(
    id: MachineId,
    name: &MachineName,
    snapshot: &Snapshot,
    network: CloneNetwork,
) -> Result<(MachineFile, MachineState)> {
    let draft = &snapshot.draft;
    let mut config = MachineConfig { id, ..draft.config.clone() };
    if network == CloneNetwork::Fresh {
        for nic in &mut config.nics {
            nic.mac = random_mac()?;
        }
    }
    let origin = Origin { machine: draft.config.id, name: draft.machine_name.clone(), snapshot: snapshot.id };
    let state = MachineState {
        phase: Phase::Suspended,
        base: Some(Point { generation: draft.generation, id: snapshot.id }),
        resume_from: Some(snapshot.id),
        network: match network {
            CloneNetwork::Unplugged => NetworkStart::Unplugged,
            CloneNetwork::Fresh => NetworkStart::Fresh,
            CloneNetwork::Same => NetworkStart::Same,
        },
        ..MachineState::new()
    };
    let file = MachineFile {
        bridge: None,
        name: name.clone(),
        created_unix_ms: now_unix_ms(),
        origin: Some(origin),
        retention: Retention::default(),
        config,
    };
    Ok((file, state))
}

fn missing(region: &Region) -> Error {
    Error::Report(ErrorReport::new(
        ErrorKind::Damaged,
        format!("the snapshot names {} as what it boots from, and does not hold it", region.name),
        "`watari verify` tells what else is damaged",
    ))
}
