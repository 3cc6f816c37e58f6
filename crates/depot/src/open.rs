//! From an address to a store.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watari_store::{Files, Store};

use crate::archive::Archive;
use crate::bucket::Bucket;
use crate::folder::Folder;
use crate::remembering::Remembering;
use crate::sealed::{self, KEY, Sealed};
use crate::{Address, Error, Secret};

/// What a depot is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read what is there. Nothing is written, not even where nothing is.
    Read,
    /// To put something there; it is begun if there is none.
    Write,
}

/// A depot, and how to get at it.
pub struct Depot<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// What it is opened with, if it is encrypted or to be.
    pub secret: Option<&'a Secret>,
    /// How to reach the service, by the names of the environment's variables: `AWS_ACCESS_KEY_ID` and so on.
    pub settings: &'a BTreeMap<String, String>,
    /// A folder for what need not be fetched from a bucket again; it is made when there is something to keep.
    pub nearby: Option<&'a Path>,
}

/// Opens a depot as the store that it is.
///
/// # Errors
/// Nothing was changed, but for what of an empty depot may have been begun.
pub fn open(depot: &Depot<'_>, access: Access) -> Result<Store, Error> {
    let is_fixed = access == Access::Read;
    let place = depot.address.to_string();
    let failed = |e| Error::io("open", &place)(e);
    let files: Arc<dyn Files> = match depot.address {
        Address::Folder(path) => {
            if !is_fixed {
                ensure_ours(path, &place)?;
            }
            let is_sealed = path.join(KEY).exists();
            if !is_sealed && depot.secret.is_none() {
                return Ok(if is_fixed { Store::open_fixed(path)? } else { Store::open(path)? });
            }
            if !is_sealed && path.join("format").exists() {
                return Err(Error::NotSealed(place));
            }
            Arc::new(Folder::new(path, is_fixed).map_err(failed)?)
        }
        Address::Archive(path) => Arc::new(Archive::new(path, is_fixed).map_err(failed)?),
        Address::Bucket { bucket, prefix } => Arc::new(Bucket::new(bucket, prefix, &place, depot.settings)?),
    };
    let root = PathBuf::from(&place);
    let is_sealed = sealed::is_sealed(&*files).map_err(failed)?;
    let Some(secret) = depot.secret else {
        return match is_sealed {
            true => Err(Error::Sealed(place)),
            false => Ok(Store::open_elsewhere(&root, remembering(files, depot), is_fixed)?),
        };
    };
    if !is_sealed {
        // Encrypting what is there is not what was asked for, and reading needs something to read.
        if files.open("format").is_ok() {
            return Err(Error::NotSealed(place));
        }
        if is_fixed {
            return Err(watari_store::Error::NoStore { path: root }.into());
        }
    }
    let sealed: Arc<dyn Files> = Arc::new(Sealed::open(files, &place, secret)?);
    Ok(Store::open_elsewhere(&root, remembering(sealed, depot), is_fixed)?)
}

/// What is in a file or a folder is near enough.
fn remembering(files: Arc<dyn Files>, depot: &Depot<'_>) -> Arc<dyn Files> {
    match (depot.address, depot.nearby) {
        (Address::Bucket { .. }, Some(nearby)) => Arc::new(Remembering::new(files, nearby)),
        _ => files,
    }
}

/// Refuses a folder in which something else is: it would be scattered among it.
fn ensure_ours(path: &Path, place: &str) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("look into", place))?,
    };
    let names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let is_ours = |name: &String| name == "format" || name == KEY;
    // What is there before either of them.
    let is_begun = |name: &String| {
        ["packs", "snapshots", "condemned", "refs", "leases", "tmp", "objects"].contains(&name.as_str())
    };
    match names.iter().any(is_ours) || names.iter().all(is_begun) {
        true => Ok(()),
        false => Err(Error::NotEmpty(place.to_owned())),
    }
}
