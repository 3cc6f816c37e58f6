//! Depots as a person names them, and what opens them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use watari_node::api::DepotRequest;
use watari_types::{ErrorKind, ErrorReport};

use crate::args::absolute;
use crate::failure::{Failure, Result};

/// What opens an encrypted depot. A new one is encrypted with it.
#[derive(Args)]
pub(crate) struct Unlock {
    /// Encrypted with the passphrase that is this file's first line [or in WATARI_PASSPHRASE]
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    passphrase_file: Option<PathBuf>,
    /// Encrypted for the keys in this file, as `age-keygen` makes it
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Unlock {
    /// The depot that is meant, with what it takes to use it.
    pub(crate) fn depot(&self, address: &str) -> Result<DepotRequest> {
        // What looks like neither a path nor a file may be a node.
        let is_name = !address.contains('/') && !address.ends_with(".tar");
        let node = is_name.then(|| address.to_owned());
        let address = match address.contains("://") {
            true => address.to_owned(),
            false => absolute(Path::new(address))?.to_string_lossy().into_owned(),
        };
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|e| Failure::io(&format!("read {}", path.display()), &e))
        };
        let passphrase = match (&self.passphrase_file, &self.identity) {
            (Some(path), _) => Some(first_line(&read(path)?)),
            (None, None) => std::env::var("WATARI_PASSPHRASE").ok(),
            (None, Some(_)) => None,
        };
        if passphrase.as_ref().is_some_and(String::is_empty) {
            return Err(ErrorReport::new(ErrorKind::BadRequest, "the passphrase is empty", "").into());
        }
        let identity = self.identity.as_ref().map(read).transpose()?;
        let settings: BTreeMap<String, String> =
            std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect();
        let settings = if address.starts_with("s3://") { settings } else { BTreeMap::new() };
        Ok(DepotRequest { address, node, passphrase, identity, settings })
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
