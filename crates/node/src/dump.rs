//! A snapshot's memory and registers, for a debugger: whole under its name, or not there.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use watari_keeper::home::MachineHome;
use watari_keeper::write_core;

use crate::api::{CoreInfo, CoreRequest};
use crate::create::remove_folder;
use crate::ending::end_qemu;
use crate::node::{Node, OnProgress};
use crate::supervise::living_qemu;
use crate::{Error, Result};

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Node {
    /// Writes the core of the snapshot that `rev` names.
    pub(crate) fn core(&self, rev: &str, request: &CoreRequest, progress: OnProgress) -> Result<CoreInfo> {
        let path = &request.path;
        if !request.force && fs::symlink_metadata(path).is_ok() {
            return Err(Error::FileExists(path.clone()));
        }
        let lease = self.store.lease()?;
        let found = self.resolve(rev)?;
        let _pin = self.pins.pin(found.id);
        drop(lease);
        let snapshot = self.with_memory(rev, found.id)?;
        let draft = &snapshot.draft;
        let is_shared = self.home.head(found.id)?.exists();
        let needed = if is_shared { 0 } else { draft.config.memory_bytes };
        self.ensure_memory(&draft.machine_name, needed, 0)?;
        self.ensure_accelerator(&self.qemu()?, progress)?;
        let place = Place(self.home.ephemeral(NEXT.fetch_add(1, Ordering::Relaxed)));
        place.0.create()?;
        self.furnish_boot(&place.0, &draft.config, &self.store.page_tables(found.id)?)?;
        let unfinished = Unfinished::create(path)?;
        let search_path = self.options.search_path.clone();
        let written =
            write_core(&self.home, &place.0, &snapshot, search_path, &unfinished.file, &|p| progress(p));
        self.sweep_heads();
        let bytes = written?;
        let found = unfinished.file.metadata().map_err(Error::io("inspect", path))?;
        unfinished.publish(path)?;
        Ok(CoreInfo {
            path: path.clone(),
            snapshot: snapshot.id,
            bytes,
            allocated_bytes: found.blocks() * 512,
        })
    }

    /// Ends and removes instances of no machine that a killed daemon left. Called while there can be none of ours.
    pub(crate) fn remove_old_ephemerals(&self) -> Result<()> {
        let folder = self.home.ephemerals();
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io("list", &folder))?,
        };
        for entry in entries.flatten() {
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && let Some(qemu) = living_qemu(&self.home.ephemeral(number))
            {
                end_qemu(&qemu)?;
            }
        }
        remove_folder(&folder)
    }
}

/// The folder of an instance that is no machine's, removed when dropped.
struct Place(MachineHome);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(self.0.folder()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "left behind");
        }
    }
}

/// A file that nobody but its owner may read, beside the one it is to become; removed when dropped before that.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn create(wanted: &Path) -> Result<Unfinished> {
        let name = wanted.file_name().unwrap_or_default().to_string_lossy();
        let path = wanted.with_file_name(format!(".{name}.{}.new", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok(Unfinished { file: file.map_err(Error::io("create", wanted))?, path })
    }

    /// Gives the file its name. Its content is on the medium already.
    fn publish(self, wanted: &Path) -> Result<()> {
        fs::rename(&self.path, wanted).map_err(Error::io("write", wanted))?;
        let folder = wanted.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("write", wanted))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
