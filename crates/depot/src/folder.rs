//! Files in a folder, for what is not a store's folder itself: under encryption.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use watari_store::{Files, ReadAt};

const TMP: &str = "tmp";

/// A folder. Files appear in it whole and durably, or not at all.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder, which is created unless it is only read.
    pub(crate) fn new(root: &Path, is_fixed: bool) -> io::Result<Folder> {
        if !is_fixed {
            fs::create_dir_all(root.join(TMP))?;
        }
        Ok(Folder { root: root.to_owned() })
    }
}

impl Files for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        match fs::read_dir(self.root.join(folder)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        let file = File::open(self.root.join(name))?;
        let bytes = file.metadata()?.len();
        Ok(Box::new(Part { file, start: 0, bytes }))
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync(&self.root)?;
        }
        let mut file = NamedTempFile::new_in(self.root.join(TMP))?;
        copy(content, bytes, file.as_file_mut())?;
        file.as_file().sync_all()?;
        let put = match may_replace {
            true => file.persist(&path).map_err(|e| e.error).map(|_| true),
            false => match file.persist_noclobber(&path) {
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                put => put.map(|_| true).map_err(|e| e.error),
            },
        }?;
        sync(folder)?;
        Ok(put)
    }

    fn spool(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.root.join(TMP))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Copies the first bytes of a file to where another one stands.
pub(crate) fn copy(from: &File, bytes: u64, to: &mut File) -> io::Result<()> {
    let mut from = from.try_clone()?;
    from.seek(SeekFrom::Start(0))?;
    match io::copy(&mut from.take(bytes), to)? {
        copied if copied == bytes => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A part of a file.
pub(crate) struct Part {
    pub(crate) file: File,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl ReadAt for Part {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(into, self.start + offset)
    }
}
