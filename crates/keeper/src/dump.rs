//! A snapshot's memory and registers as an ELF core, as `gdb` and `crash` read it.
//!
//! ```text
//!   store ─► head ─► QEMU (incoming) ◄─ small blocks, devices ─► pages that loading changed, put back
//!                      │ dump-guest-memory
//!                      └──pipe──► file, without its zero pages
//! ```
//!
//! Where the guest's physical memory lies and how a CPU's registers become notes is QEMU's to know, so a QEMU writes the
//! core: one that has loaded the snapshot like a clone and never runs it. It has no folder among the machines, no place in
//! a history, and disks that nobody can write to.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use watari_disk::nbd::{Export, ReadOnly};
use watari_qemu::{Display, Monitor};
use watari_store::{NodeKey, Snapshot};
use watari_types::{PAGE_SIZE, RegionName, Retention, is_zero};

use crate::ground::{Ground, Newborn};
use crate::history::{History, StoreSource};
use crate::home::{Home, MachineHome};
use crate::process::kill_if_same;
use crate::protocol::{MemoryFrom, Progress};
use crate::ram::Ram;
use crate::record::{MachineFile, MachineState, Point};
use crate::settings::Settings;
use crate::{Error, Result};

/// How long QEMU may take to write all of a guest's memory. Only one that hangs takes as long.
const DUMP_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// What is read from QEMU at a time.
const CHUNK: usize = 1 << 20;

/// Writes the core of a snapshot with memory to `file`, which is empty, and syncs it. `place` is a folder of the
/// instance's own, with what the machine boots from. Returns the core's size.
///
/// # Errors
/// [`Error::NoMemoryImage`]; [`Error::Core`] if the file cannot take it; else what went wrong with QEMU or the store. The
/// file may hold a part of it.
pub fn write_core(
    node: &Home,
    place: &MachineHome,
    snapshot: &Snapshot,
    search_path: OsString,
    file: &File,
    progress: &dyn Fn(Progress),
) -> Result<u64> {
    let draft = &snapshot.draft;
    let ground = Ground {
        file: MachineFile {
            bridge: None,
            name: draft.machine_name.clone(),
            created_unix_ms: draft.created_unix_ms,
            origin: draft.origin.clone(),
            retention: Retention::default(),
            config: draft.config.clone(),
        },
        before: MachineState::new(),
        key: NodeKey::load_or_create(&node.node_key())?,
        settings: Settings::load(node)?,
        // It never runs, and shows nothing.
        display: Display::Vnc,
        search_path,
        home: place.clone(),
        node: node.clone(),
    };
    progress(Progress { step: "reading the snapshot".to_owned(), done: 0, total: 0 });
    let point = Point { generation: draft.generation, id: snapshot.id };
    let history = ground.history_at(point)?;
    let devices =
        history.store().device_state(point.id)?.ok_or(Error::NoMemoryImage { snapshot: point.id })?;
    let memory = ground.memory_for(point, MemoryFrom::Head)?;
    let _disks = ground.serve_exports(ground.listen()?, exports(&ground, &history, point)?.into_iter())?;
    let mut newborn = ground.spawn(&memory, true, false)?;
    let written = (|| {
        let mut ram = ground.load_into(&newborn, &history, &devices, &memory)?;
        put_back(&mut ram, &history)?;
        dump(&newborn, file, draft.config.memory_bytes, progress)
    })();
    newborn.end(place);
    written
}

/// The snapshot's disks, to be read only.
fn exports(ground: &Ground, history: &History, point: Point) -> Result<Vec<Arc<dyn Export>>> {
    let export = |(index, bytes)| {
        let source = StoreSource::open(history.store(), point.id, &RegionName::disk(index))?;
        Ok(Arc::new(ReadOnly::new(Arc::new(source), bytes)) as Arc<dyn Export>)
    };
    ground.file.config.disks.iter().map(|disk| disk.bytes).enumerate().map(export).collect()
}

/// Makes memory what the snapshot holds again, where loading the devices has changed it: QEMU tells a guest that goes on
/// from a snapshot so, by a new generation id.
fn put_back(ram: &mut Ram, history: &History) -> Result<()> {
    for (range, written) in ram.scan()?.iter().enumerate() {
        let table = history.table(&ram.ranges()[range].name).cloned().unwrap_or_default();
        for page in written.iter() {
            let mut content = [0; PAGE_SIZE];
            history.store().read_page(&table.get(page), &mut content)?;
            ram.write(range, page, &content)?;
        }
    }
    Ok(())
}

/// Has QEMU write the core into a pipe, and what comes out of that into the file.
fn dump(newborn: &Newborn, file: &File, expected: u64, progress: &dyn Fn(Progress)) -> Result<u64> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Core { source: e.into() })?;
    std::thread::scope(|scope| {
        let dumping = scope.spawn(move || {
            dump_into(&newborn.monitor, writer).inspect_err(|_| {
                // One that hangs would keep the pipe open.
                kill_if_same(newborn.record.qemu_pid, newborn.record.qemu_started);
            })
        });
        let copied = copy(reader, file, &mut |done| {
            let total = expected.max(done);
            progress(Progress { step: "writing the core".to_owned(), done, total });
        });
        let dumped = dumping.join().unwrap_or_else(|_| Err(Error::Internal("dumping panicked".into())));
        // If the file cannot take it, the pipe breaks, and QEMU only says that.
        let bytes = copied.map_err(|source| Error::Core { source })?;
        dumped.map(|()| bytes)
    })
}

/// QEMU opens our end of the pipe, which is closed once nobody has it open any more.
fn dump_into(monitor: &Monitor, writer: OwnedFd) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd()));
    Ok(monitor.dump_memory(Path::new(&path), DUMP_LIMIT)?)
}

/// Copies everything, and leaves holes where pages of the file would be zero. Returns how much it was.
fn copy(reader: OwnedFd, file: &File, done: &mut dyn FnMut(u64)) -> std::io::Result<u64> {
    let mut reader = File::from(reader);
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut at = 0;
    loop {
        chunk.clear();
        (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        for (page, bytes) in (0..).zip(chunk.chunks(PAGE_SIZE)) {
            if !is_zero(bytes) {
                file.write_all_at(bytes, at + page * PAGE_SIZE as u64)?;
            }
        }
        at += chunk.len() as u64;
        done(at);
    }
    file.set_len(at)?;
    file.sync_all()?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_has_holes_for_zeros() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut content = vec![0; 3 * CHUNK + 100];
        for at in [0, PAGE_SIZE * 7 - 1, CHUNK + 5, 3 * CHUNK + 99] {
            content[at] = 1;
        }
        let wanted = content.clone();
        let writing = std::thread::spawn(move || File::from(writer).write_all(&content));
        let file = tempfile::tempfile().unwrap();
        let mut told = 0;
        assert_eq!(copy(reader, &file, &mut |done| told = done).unwrap(), wanted.len() as u64);
        writing.join().unwrap().unwrap();
        let mut found = vec![1; wanted.len() + 1];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), wanted.len());
        assert!(found[..wanted.len()] == wanted);
        assert_eq!(told, wanted.len() as u64);
        assert!(file.metadata().unwrap().blocks() * 512 <= 8 * PAGE_SIZE as u64);
    }
}
