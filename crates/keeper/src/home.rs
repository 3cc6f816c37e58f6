//! Where everything of a node lies: the folders below `WATARI_HOME`.
//!
//! ```text
//! node/key                    the node's ed25519 key
//! node/web-token, web-port    what lets people use the web page, and where it was last
//! node/accel.json             which accelerator works here, found by booting
//! machines/NAME/machine.toml  identity and configuration
//! machines/NAME/state.json    what the machine is doing, rewritten atomically
//! machines/NAME/network.json  whether a person plugged or pulled its cable, if anyone did
//! machines/NAME/captures.jsonl
//!                             what its newest snapshots took to make: pauses, times, pages
//! machines/NAME/lock          held by the one process that may change the machine
//! machines/NAME/disk0.raw …   disks, with disk0.map beside them
//! machines/NAME/boot/         kernel and initrd
//! machines/NAME/*.log         serial console, QEMU, keeper
//! store/                      packs, snapshots, refs
//! cache/                      what can be had elsewhere, and may be removed at any time
//! run/node, run/NAME/…        sockets, and what is known of the instance that runs
//! run/.ephemeral/N/…          all there is of an instance that is no machine's
//! ```
//!
//! Memory heads, which clones map copy-on-write, must be shared memory: they lie in a folder of their own on
//! the host's tmpfs, named after the user and the home.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use watari_types::{MachineName, SnapshotId};

use crate::{Error, Result};

/// Longest socket address that Linux takes, without the final NUL (unix(7), `sun_path`).
const MAX_SOCKET_PATH: usize = 107;
/// The longest name of a socket below a machine's run folder.
const LONGEST_SOCKET: &str = "/keeper";

/// The folders of one node.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    shared_memory: PathBuf,
}

impl Home {
    /// Opens or creates the home at `root`, with the memory heads below `tmpfs` (normally `/dev/shm`).
    pub fn open(root: &Path, tmpfs: &Path) -> Result<Home> {
        for sub in ["node", "machines", "store", "run"] {
            create_private(&root.join(sub))?;
        }
        let root = root.canonicalize().map_err(Error::io("open the home", root))?;
        let tag = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let uid = rustix::process::geteuid().as_raw();
        Ok(Home { shared_memory: tmpfs.join(format!("watari-{uid}-{}", &tag[..12])), root })
    }

    /// The folder everything lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is remembered of packs in depots.
    pub fn remembered_packs(&self) -> PathBuf {
        self.root.join("cache/packs")
    }

    /// The node's key, in PEM-less raw form as the store writes it.
    pub fn node_key(&self) -> PathBuf {
        self.root.join("node/key")
    }

    /// Which accelerator works here, as the daemon found by booting a guest.
    pub fn accel(&self) -> PathBuf {
        self.node_file("accel.json")
    }

    /// A file that belongs to the node as a whole.
    pub fn node_file(&self, name: &str) -> PathBuf {
        self.root.join("node").join(name)
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The folder of all machines.
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// The daemon's API socket.
    pub fn node_socket(&self) -> PathBuf {
        self.root.join("run/node")
    }

    /// One machine's folders. Nothing is created.
    pub fn machine(&self, name: &MachineName) -> MachineHome {
        MachineHome {
            folder: self.machines().join(name.as_str()),
            run: self.root.join("run").join(name.as_str()),
        }
    }

    /// The folder of instances that are no machine's. No machine's name begins with a dot.
    pub fn ephemerals(&self) -> PathBuf {
        self.root.join("run/.ephemeral")
    }

    /// The folder of one of them, which is all it has. Nothing is created.
    pub fn ephemeral(&self, number: u64) -> MachineHome {
        let folder = self.ephemerals().join(number.to_string());
        MachineHome { run: folder.clone(), folder }
    }

    /// The names of all machines, in alphabetical order.
    pub fn machine_names(&self) -> Result<Vec<MachineName>> {
        let folder = self.machines();
        let mut names: Vec<MachineName> = fs::read_dir(&folder)
            .map_err(Error::io("list", &folder))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|name| self.machine(name).config().exists())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The folder of memory heads, on tmpfs; created on first use. It may be gone again at once: see
    /// [`heads`](crate::heads).
    pub fn heads(&self) -> Result<PathBuf> {
        let path = &self.shared_memory;
        loop {
            match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                created => created.map_err(Error::io("create", path))?,
            }
            // Not what a link of somebody else's points to.
            let owner = match fs::symlink_metadata(path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                found => found.map_err(Error::io("inspect", path))?.uid(),
            };
            if owner == rustix::process::geteuid().as_raw() {
                return Ok(path.clone());
            }
            return Err(Error::ForeignHeads { path: path.clone(), owner });
        }
    }

    /// Where that folder is if it is there. Nothing is created.
    pub fn heads_if_any(&self) -> &Path {
        &self.shared_memory
    }

    /// Where the memory head of a snapshot lies if it is there.
    pub fn head(&self, id: SnapshotId) -> Result<PathBuf> {
        Ok(self.heads()?.join(id.to_string()))
    }
}

/// The folders of one machine.
#[derive(Clone, Debug)]
pub struct MachineHome {
    folder: PathBuf,
    run: PathBuf,
}

impl MachineHome {
    /// Creates both folders, readable by their owner only.
    ///
    /// # Errors
    /// When the home's path is so long that a socket below it could not be addressed.
    pub fn create(&self) -> Result<()> {
        let length = self.run.as_os_str().len() + LONGEST_SOCKET.len();
        if length > MAX_SOCKET_PATH {
            return Err(Error::HomeTooLong { path: self.run.clone(), over: length - MAX_SOCKET_PATH });
        }
        create_private(&self.folder)?;
        create_private(&self.run)
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the machine's sockets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The machine's identity and configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("machine.toml")
    }

    /// What the machine is doing.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// What a new keeper needs to take a running QEMU over.
    pub fn instance(&self) -> PathBuf {
        self.run.join("instance.json")
    }

    /// Which pages of a resumed machine's memory have arrived, while some have not.
    pub(crate) fn arrived(&self) -> PathBuf {
        self.run.join("arrived")
    }

    /// The socket of whoever passes on what a machine wants of the node that it came from.
    pub fn lender(&self) -> PathBuf {
        self.socket("lender")
    }

    /// What a machine that runs owes to the node that it came from.
    pub fn lent(&self) -> PathBuf {
        self.folder.join("lent.json")
    }

    /// The file whose lock makes a process the machine's only owner.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// The raw file of disk `index`.
    pub fn disk(&self, index: usize) -> PathBuf {
        self.folder.join(format!("disk{index}.raw"))
    }

    /// The file with the content of the boot region `boot/NAME`.
    pub fn boot_file(&self, name: &str) -> PathBuf {
        self.folder.join("boot").join(name)
    }

    /// A log: `serial`, `qemu` or `keeper`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// A socket: `keeper`, `qmp`, `disks`, `vnc`, `serial`, `agent`, `spice`, `gdb` or `lender`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }
}

fn create_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests {
    use watari_qemu::{AGENT_SOCKET, DESKTOP_SOCKET, GDB_SOCKET, QMP_SOCKET, SERIAL_SOCKET, VNC_SOCKET};

    use super::*;

    #[test]
    fn no_socket_has_a_longer_name_than_is_reckoned_with() {
        let others = ["keeper", "disks", "lender"];
        for name in [AGENT_SOCKET, DESKTOP_SOCKET, GDB_SOCKET, QMP_SOCKET, SERIAL_SOCKET, VNC_SOCKET]
            .iter()
            .chain(&others)
        {
            assert!("/".len() + name.len() <= LONGEST_SOCKET.len(), "{name}");
        }
    }
}
