//! New machines: all of one, or nothing.
//!
//! A machine exists once its `machine.toml` does, so that file is written last. A folder without one is what an
//! earlier attempt left behind, and is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use watari_disk::{Disk, image};
use watari_keeper::home::MachineHome;
use watari_keeper::protocol::Progress;
use watari_keeper::record::{MachineFile, MachineState};
use watari_qemu::{CPU_MODEL, DEVICE_LAYOUT};
use watari_types::{
    BOOT_INITRD, BOOT_KERNEL, Boot, DiskConfig, MachineConfig, MachineId, MachineName, NicConfig, PAGE_SIZE,
    Region, RegionName, Retention,
};

use crate::api::{BootRequest, CreateRequest, MachineInfo};
use crate::network::ensure_bridge;
use crate::node::{Node, OnProgress};
use crate::{Error, Result};

const MIB: u64 = 1 << 20;
/// Below this not even the demo machine's kernel unpacks itself.
const LEAST_MEMORY: u64 = 32 * MIB;
const DEFAULT_MEMORY: u64 = 512 * MIB;
const DEMO_MEMORY: u64 = 128 * MIB;
const DEMO_DISK: u64 = 64 * MIB;
/// Virtual CPUs beyond this many per CPU of the host only get in each other's way.
const CPUS_PER_HOST_CPU: usize = 4;
/// The largest Linux kernel and initial ramdisk taken: they are loaded into guest memory.
const LARGEST_BOOT_FILE: u64 = 1 << 30;

impl Node {
    /// Creates a machine. The caller holds the lock of its name.
    pub(crate) fn create(
        &self,
        name: &MachineName,
        request: &CreateRequest,
        progress: OnProgress,
    ) -> Result<MachineInfo> {
        self.ensure_free(name)?;
        ensure_bridge(request.bridge.as_ref())?;
        let (memory_bytes, cpus) = check_size(request)?;
        let machine_type = self.qemu()?.default_machine_type()?;
        self.build(name, |home| {
            let boot = write_boot_files(home, &request.boot)?;
            let config = MachineConfig {
                id: random_id()?,
                memory_bytes,
                cpus,
                machine_type,
                cpu_model: CPU_MODEL.to_owned(),
                device_layout: DEVICE_LAYOUT,
                boot,
                disks: make_disk(home, request, progress)?
                    .into_iter()
                    .map(|bytes| DiskConfig { bytes })
                    .collect(),
                nics: vec![NicConfig { mac: random_mac()? }],
            };
            let file = MachineFile {
                name: name.clone(),
                created_unix_ms: now_unix_ms(),
                origin: None,
                bridge: request.bridge.clone(),
                retention: Retention::default(),
                config,
            };
            Ok((file, MachineState::new()))
        })
    }

    /// Refuses a name that is taken or that the run folder needs itself.
    pub(crate) fn ensure_free(&self, name: &MachineName) -> Result<()> {
        let home = self.home.machine(name);
        if home.run() == self.home.node_socket() {
            return Err(Error::ReservedName(name.to_string()));
        }
        if home.config().exists() { Err(Error::NameTaken(name.clone())) } else { Ok(()) }
    }

    /// Makes a machine's folders and lets `furnish` fill them; all of it is removed again if that fails.
    pub(crate) fn build(
        &self,
        name: &MachineName,
        furnish: impl FnOnce(&MachineHome) -> Result<(MachineFile, MachineState)>,
    ) -> Result<MachineInfo> {
        let home = self.home.machine(name);
        remove_folder(home.folder())?;
        let built = home.create().map_err(Error::from).and_then(|()| {
            let (file, state) = furnish(&home)?;
            state.save(&home)?;
            file.save(&home)?;
            self.info(name)
        });
        if built.is_err() {
            for folder in [home.folder(), home.run()] {
                if let Err(error) = remove_folder(folder) {
                    tracing::warn!(%name, error = &error as &dyn std::error::Error, "left behind");
                }
            }
        }
        built
    }
}

/// Removes a folder if it is there.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn check_size(request: &CreateRequest) -> Result<(u64, u32)> {
    let default = if matches!(request.boot, BootRequest::Demo { .. }) { DEMO_MEMORY } else { DEFAULT_MEMORY };
    let memory = request.memory_bytes.unwrap_or(default);
    if memory < LEAST_MEMORY || !memory.is_multiple_of(MIB) {
        return Err(Error::BadRequest(format!(
            "a machine's memory is a whole number of MiB, at least 32M, not {memory} bytes"
        )));
    }
    let most = std::thread::available_parallelism().map_or(1, |n| n.get()) * CPUS_PER_HOST_CPU;
    let cpus = request.cpus.unwrap_or(1);
    if cpus == 0 || cpus as usize > most {
        return Err(Error::BadRequest(format!("a machine on this host has 1 to {most} CPUs, not {cpus}")));
    }
    if request.disk_bytes.is_some_and(|bytes| bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE as u64)) {
        return Err(Error::BadRequest("a disk's size is a multiple of 4096 bytes, and not 0".to_owned()));
    }
    if matches!(request.boot, BootRequest::Disk) && request.image.is_none() {
        return Err(Error::BadRequest("a machine boots from an image, a kernel or the demo".to_owned()));
    }
    if matches!(request.boot, BootRequest::Demo { .. }) && request.image.is_some() {
        return Err(Error::BadRequest(
            "the demo machine has a disk of its own, and takes no image".to_owned(),
        ));
    }
    Ok((memory, cpus))
}

/// Puts kernel and initial ramdisk into the machine's folder.
fn write_boot_files(home: &MachineHome, boot: &BootRequest) -> Result<Boot> {
    match boot {
        BootRequest::Disk => Ok(Boot::Disk),
        BootRequest::Demo { append: more } => {
            let kernel = watari_demo::find_kernel()?;
            let image = copy_boot_file(home, BOOT_KERNEL, &kernel.image)?;
            let initrd = write_boot_file(home, BOOT_INITRD, &watari_demo::initramfs(&kernel)?)?;
            let append = format!("{} {more}", watari_demo::append(None, &[])).trim_end().to_owned();
            Ok(Boot::Kernel { kernel: image, initrd: Some(initrd), append })
        }
        BootRequest::Kernel { kernel, initrd, append } => Ok(Boot::Kernel {
            kernel: copy_boot_file(home, BOOT_KERNEL, kernel)?,
            initrd: initrd.as_ref().map(|file| copy_boot_file(home, BOOT_INITRD, file)).transpose()?,
            append: append.clone(),
        }),
    }
}

fn copy_boot_file(home: &MachineHome, region: &str, from: &Path) -> Result<Region> {
    let found = fs::metadata(from).map_err(Error::io("read", from))?;
    if !found.is_file() || found.len() == 0 || found.len() > LARGEST_BOOT_FILE {
        return Err(Error::NotABootFile { path: from.to_owned(), region: region.to_owned() });
    }
    if region == BOOT_KERNEL && !is_linux_kernel(from)? {
        return Err(Error::NotABootFile { path: from.to_owned(), region: region.to_owned() });
    }
    let (name, to) = boot_file(home, region)?;
    let bytes = fs::copy(from, &to).map_err(Error::io("copy", from))?;
    sync(&to)?;
    Ok(Region { name, bytes })
}

fn write_boot_file(home: &MachineHome, region: &str, content: &[u8]) -> Result<Region> {
    let (name, to) = boot_file(home, region)?;
    fs::write(&to, content).map_err(Error::io("write", &to))?;
    sync(&to)?;
    Ok(Region { name, bytes: content.len() as u64 })
}

/// The region's name and its file, in a folder that is there.
pub(crate) fn boot_file(home: &MachineHome, region: &str) -> Result<(RegionName, PathBuf)> {
    let name: RegionName = region.parse().map_err(|e| Error::Internal(format!("{e}")))?;
    let path = home.boot_file(name.rest());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    Ok((name, path))
}

/// Whether a file is a Linux kernel for x86: boot protocol, `HdrS` at 0x202 (Documentation/arch/x86/boot.rst).
fn is_linux_kernel(path: &Path) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0x202) {
        Ok(()) => Ok(&magic == b"HdrS"),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// Brings a file to the disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}

/// Makes the first disk, if there is to be one, and returns its size.
fn make_disk(home: &MachineHome, request: &CreateRequest, progress: OnProgress) -> Result<Option<u64>> {
    let path = home.disk(0);
    if let Some(file) = &request.image {
        let total = 1000;
        image::import(file, &path, request.disk_bytes, &|share| {
            let done = (share * total as f64) as u64;
            progress(Progress { step: "importing the image".to_owned(), done, total });
        })?;
        return Ok(Some(Disk::adopt_raw(&path)?.bytes()));
    }
    let demo = matches!(request.boot, BootRequest::Demo { .. }).then_some(DEMO_DISK);
    match request.disk_bytes.or(demo) {
        Some(bytes) => Ok(Some(Disk::create(&path, bytes, None)?.bytes())),
        None => Ok(None),
    }
}

/// A new machine's name for ever.
pub(crate) fn random_id() -> Result<MachineId> {
    let mut id = [0; 16];
    fill_random(&mut id)?;
    Ok(MachineId(id))
}

/// A hardware address below 52:54:00, the prefix that emulated cards use.
pub(crate) fn random_mac() -> Result<String> {
    let mut tail = [0; 3];
    fill_random(&mut tail)?;
    Ok(format!("52:54:00:{:02x}:{:02x}:{:02x}", tail[0], tail[1], tail[2]))
}

/// Fills `bytes` with what nobody can guess.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| Error::Random(e.into()))
}

/// The time, in milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(boot: BootRequest) -> CreateRequest {
        CreateRequest {
            name: "x".to_owned(),
            boot,
            image: None,
            disk_bytes: None,
            memory_bytes: None,
            cpus: None,
            bridge: None,
        }
    }

    #[test]
    fn sizes_that_no_machine_can_have_are_refused() {
        let demo = || request(BootRequest::Demo { append: String::new() });
        assert_eq!(check_size(&demo()).unwrap(), (DEMO_MEMORY, 1));
        for bad in [
            CreateRequest { memory_bytes: Some(31 * MIB), ..demo() },
            CreateRequest { memory_bytes: Some(64 * MIB + 1), ..demo() },
            CreateRequest { cpus: Some(0), ..demo() },
            CreateRequest { cpus: Some(100_000), ..demo() },
            CreateRequest { disk_bytes: Some(0), ..demo() },
            CreateRequest { disk_bytes: Some(4097), ..demo() },
            CreateRequest { image: Some("/x".into()), ..demo() },
            request(BootRequest::Disk),
        ] {
            assert!(matches!(check_size(&bad), Err(Error::BadRequest(_))), "{bad:?}");
        }
    }

    #[test]
    fn hardware_addresses_are_random_and_well_formed() {
        let (a, b) = (random_mac().unwrap(), random_mac().unwrap());
        assert!(a.starts_with("52:54:00:") && a.len() == 17, "{a}");
        assert!((0..8).any(|_| random_mac().unwrap() != a), "{a} {b}");
    }

    #[test]
    fn what_is_no_kernel_is_told_from_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        fs::write(&path, "short").unwrap();
        assert!(!is_linux_kernel(&path).unwrap());
        let mut header = vec![0; 0x300];
        header[0x202..0x206].copy_from_slice(b"HdrS");
        fs::write(&path, header).unwrap();
        assert!(is_linux_kernel(&path).unwrap());
    }
}
