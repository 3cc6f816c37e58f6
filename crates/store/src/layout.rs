//! Where things are in a store, and how to get at them wherever it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watari_types::{MachineId, SnapshotId};

use crate::elsewhere::Files;
use crate::error::{At, Error};
use crate::files::{self, NewFile, OpenFile, ensure_dir, folder_of, remove_abandoned};
use crate::pack::PackId;

const LAYOUT_VERSION: u32 = 1;
const FORMAT: &str = "format";
/// No ref is longer.
const MOST_SMALL: u64 = 4096;

/// The paths of one store. What a path names is in the folder `root`, or wherever `elsewhere` keeps it under the same
/// name; then the path says so to people, and to nobody else.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    elsewhere: Option<Arc<dyn Files>>,
    /// Whether it is only read.
    pub(crate) is_fixed: bool,
}

impl Layout {
    /// Creates what is not there yet and cleans up after processes that died.
    pub(crate) fn create(root: &Path) -> Result<Layout, Error> {
        let layout = Layout { root: root.to_owned(), elsewhere: None, is_fixed: false };
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

    /// One that is there, to be read.
    pub(crate) fn fixed(root: &Path) -> Result<Layout, Error> {
        let layout = Layout { root: root.to_owned(), elsewhere: None, is_fixed: true };
        layout.check_version()?;
        Ok(layout)
    }

    /// One that is not in a folder.
    pub(crate) fn elsewhere(root: &Path, files: Arc<dyn Files>, is_fixed: bool) -> Result<Layout, Error> {
        let layout = Layout { root: root.to_owned(), elsewhere: Some(files), is_fixed };
        layout.check_version()?;
        Ok(layout)
    }

    fn check_version(&self) -> Result<(), Error> {
        let path = self.root.join(FORMAT);
        match self.read(&path)? {
            Some(content) => {
                let text = String::from_utf8_lossy(&content);
                let number = text.strip_prefix("watari-store ").and_then(|t| t.strip_suffix('\n'));
                match number.and_then(|number| number.parse().ok()) {
                    Some(LAYOUT_VERSION) => Ok(()),
                    Some(version) => Err(Error::NewerFormat { path, version }),
                    None => Err(Error::damaged(&path, format!("{text:?} is not the version of a store"))),
                }
            }
            None if self.is_fixed => Err(Error::NoStore { path: self.root.clone() }),
            None => {
                let file = self.new_file()?;
                file.write_at(format!("watari-store {LAYOUT_VERSION}\n").as_bytes(), 0)?;
                file.publish_new(&path).map(|_| ())
            }
        }
    }

    /// Everything in a folder of the store; nothing if there is no such folder.
    pub(crate) fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        match &self.elsewhere {
            None => match files::list(folder) {
                Err(e) if e.is_gone() => Ok(Vec::new()),
                listed => listed,
            },
            Some(files) => {
                let names = files.list(&self.name(folder)).at("list", folder)?;
                Ok(names.into_iter().map(|name| folder.join(name)).collect())
            }
        }
    }

    /// Opens a file to read from it.
    pub(crate) fn open(&self, path: &Path) -> Result<OpenFile, Error> {
        match &self.elsewhere {
            None => OpenFile::of_folder(path),
            Some(files) => Ok(OpenFile::Elsewhere(files.open(&self.name(path)).at("open", path)?)),
        }
    }

    /// What is remembered of a file that is elsewhere.
    pub(crate) fn recall(&self, path: &Path) -> Option<Vec<u8>> {
        self.elsewhere.as_ref()?.recall(&self.name(path))
    }

    /// Remembers something of a file that is elsewhere.
    pub(crate) fn remember(&self, path: &Path, content: &[u8]) {
        if let Some(files) = &self.elsewhere {
            files.remember(&self.name(path), content);
        }
    }

    /// The content of a small file; none if there is no such file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match self.open(path) {
            Err(e) if e.is_gone() => Ok(None),
            Ok(file) if file.bytes() > MOST_SMALL => Err(Error::damaged(path, "it is too long")),
            opened => opened.and_then(|file| file.read_at(path, 0, file.bytes())).map(Some),
        }
    }

    /// Whether a file is there.
    pub(crate) fn has(&self, path: &Path) -> Result<bool, Error> {
        match &self.elsewhere {
            None => path.try_exists().at("look at", path),
            Some(files) => match files.open(&self.name(path)) {
                Ok(_) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(Error::io("look at", path, e)),
            },
        }
    }

    /// Begins a file.
    pub(crate) fn new_file(&self) -> Result<NewFile, Error> {
        match &self.elsewhere {
            None => NewFile::create(&self.tmp()),
            Some(files) => NewFile::elsewhere(files, &self.root),
        }
    }

    /// Creates a folder, where there are any.
    pub(crate) fn ensure_dir(&self, folder: &Path) -> Result<(), Error> {
        if self.elsewhere.is_none() { ensure_dir(folder) } else { Ok(()) }
    }

    /// Whether it is in no folder.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Whether garbage may be collected in it: then readers and writers have to beware.
    pub(crate) fn may_shrink(&self) -> bool {
        self.elsewhere.is_none() && !self.is_fixed
    }

    fn name(&self, path: &Path) -> String {
        files::name_in(&self.root, path)
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

    /// Packs that were damaged and are not in use any more.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
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
