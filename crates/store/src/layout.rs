//! Where things are in a store's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use watari_types::{MachineId, SnapshotId};

use crate::error::{At, Error};
use crate::files::{NewFile, ensure_dir, folder_of, remove_abandoned};
use crate::pack::PackId;

const LAYOUT_VERSION: u32 = 1;

/// The paths of one store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    /// Creates what is not there yet and cleans up after processes that died.
    pub(crate) fn create(root: &Path) -> Result<Layout, Error> {
        let layout = Layout { root: root.to_owned() };
        if !root.is_dir() {
            fs::create_dir_all(folder_of(root)).at("create", root)?;
            ensure_dir(root)?;
        }
        for folder in [
            layout.packs(),
            layout.snapshots(),
            layout.condemned(),
            layout.all_refs(),
            layout.leases(),
            layout.tmp(),
        ] {
            ensure_dir(&folder)?;
        }
        remove_abandoned(&layout.tmp());
        remove_abandoned(&layout.leases());
        layout.check_version()?;
        Ok(layout)
    }

    fn check_version(&self) -> Result<(), Error> {
        let path = self.root.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let number = text.strip_prefix("watari-store ").and_then(|t| t.strip_suffix('\n'));
                match number.and_then(|number| number.parse().ok()) {
                    Some(LAYOUT_VERSION) => Ok(()),
                    Some(version) => Err(Error::NewerFormat { path, version }),
                    None => Err(Error::damaged(&path, format!("{text:?} is not the version of a store"))),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let file = NewFile::create(&self.tmp())?;
                file.write_at(format!("watari-store {LAYOUT_VERSION}\n").as_bytes(), 0)?;
                file.publish_new(&path).map(|_| ())
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Error::damaged(&path, "it is not text")),
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    pub(crate) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    pub(crate) fn pack(&self, id: PackId) -> PathBuf {
        self.packs().join(format!("{id}.pack"))
    }

    /// Where pages are, as a process wrote it down.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Where a pack is.
    pub(crate) fn pack_in(&self, id: PackId, is_condemned: bool) -> PathBuf {
        if is_condemned { self.condemned_pack(id) } else { self.pack(id) }
    }

    /// What nothing was seen to need, and what is removed once no lease may need it.
    pub(crate) fn condemned(&self) -> PathBuf {
        self.root.join("condemned")
    }

    pub(crate) fn condemned_pack(&self, id: PackId) -> PathBuf {
        self.condemned().join(format!("{id}.pack"))
    }

    pub(crate) fn condemned_snapshot(&self, id: SnapshotId) -> PathBuf {
        self.condemned().join(format!("{id}.snap"))
    }

    /// Who is writing.
    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Locked by who collects garbage.
    pub(crate) fn collector(&self) -> PathBuf {
        self.root.join("collector")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, id: SnapshotId) -> PathBuf {
        self.snapshots().join(format!("{id}.snap"))
    }

    pub(crate) fn all_refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub(crate) fn refs(&self, machine: MachineId) -> PathBuf {
        self.all_refs().join(machine.to_string())
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
