//! What a node keeps of its mesh: who belongs to it, which invitations are open, where it listens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A folder with a few small files, each replaced as a whole.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Folder {
        Folder(path.to_owned())
    }

    /// What a file holds, if it is there.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.0.join(name);
        let failed = |source| Error::Io { action: "read", path: path.clone(), source };
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            content => serde_json::from_slice(&content.map_err(failed)?)
                .map_err(|e| failed(io::Error::other(e)))
                .map(Some),
        }
    }

    /// Replaces a file, durably.
    pub(crate) fn save(&self, name: &str, content: &impl Serialize) -> Result<(), Error> {
        let write = || {
            fs::create_dir_all(&self.0)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec_pretty(content)?)?;
            file.as_file().sync_all()?;
            file.persist(self.0.join(name))?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| Error::Io { action: "write", path: self.0.join(name), source })
    }

    /// Takes everything away.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path: self.0.clone(), source: e })
            }
            _ => Ok(()),
        }
    }
}
