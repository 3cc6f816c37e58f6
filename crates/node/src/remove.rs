//! Taking a machine away.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use watari_types::MachineName;

use crate::api::Removed;
use crate::create::remove_folder;
use crate::lifecycle::wrong_state;
use crate::node::Node;
use crate::{Error, Result};

impl Node {
    /// Removes a machine that does not run: its refs, its folders. What its snapshots alone held stays in the
    /// store until garbage is collected.
    ///
    /// # Errors
    /// [`Error::WrongState`] while it runs. After any other error the machine may have lost its history; it can
    /// be removed again.
    pub(crate) fn remove(self: &Arc<Self>, name: &MachineName) -> Result<Removed> {
        let (home, file) = self.machine(name)?;
        self.settle(name)?;
        if let Some(live) = self.live(name) {
            return Err(wrong_state(name, live.status().phase));
        }
        let freed_bytes = folder_bytes(home.folder())?;
        self.store.refs(file.config.id).remove_all()?;
        // Without this file the machine is gone; the rest is only space.
        let config = home.config();
        fs::remove_file(&config).map_err(Error::io("remove", &config))?;
        remove_folder(home.folder())?;
        remove_folder(home.run())?;
        self.forget_tenure(file.config.id)?;
        self.sweep_heads();
        Ok(Removed { name: name.clone(), freed_bytes })
    }
}

/// What removing a folder gives back: files that have another name elsewhere give nothing.
fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let found = fs::symlink_metadata(&path).map_err(Error::io("inspect", &path))?;
        bytes += match (found.is_dir(), found.nlink()) {
            (true, _) => folder_bytes(&path)?,
            (false, 1) => found.blocks() * 512,
            // A boot file that a clone or the original still has.
            (false, _) => 0,
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_others_still_have_do_not_count_as_freed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("machine/boot");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("own"), [1; 8192]).unwrap();
        fs::write(root.path().join("other"), [1; 65536]).unwrap();
        let before = folder_bytes(&root.path().join("machine")).unwrap();
        fs::hard_link(root.path().join("other"), folder.join("shared")).unwrap();
        assert!(before >= 8192);
        assert_eq!(folder_bytes(&root.path().join("machine")).unwrap(), before);
    }
}
