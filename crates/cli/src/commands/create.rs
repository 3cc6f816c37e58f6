//! `watari create`

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use watari_node::api::{BootRequest, CreateRequest, MachineInfo};
use watari_types::{BridgeName, MemorySize};

use super::Context;
use crate::args::{absolute, machine_name};
use crate::failure::Result;
use crate::format::{bytes, count};

/// Make a new machine
#[derive(Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["demo", "image", "kernel"])))]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// The built-in demo machine
    #[arg(long, conflicts_with_all = ["image", "kernel"])]
    demo: bool,
    /// A raw or qcow2 disk image, which is copied
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// A Linux kernel to boot directly
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's initial ramdisk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line; for the demo, what follows on it
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: String,
    /// Guest memory [default: 512M, and 128M for the demo]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// Virtual CPUs [default: 1]
    #[arg(long, value_name = "COUNT")]
    cpus: Option<u32>,
    /// The disk's size, at least the image's
    #[arg(long, value_name = "SIZE")]
    disk: Option<MemorySize>,
    /// A bridge of this computer's that its network card is plugged into; without one the guest reaches others, and nobody
    /// the guest
    #[arg(long, value_name = "BRIDGE")]
    bridge: Option<BridgeName>,
}

impl Create {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let boot = match &self.kernel {
            _ if self.demo => BootRequest::Demo { append: self.append.clone() },
            Some(kernel) => BootRequest::Kernel {
                kernel: absolute(kernel)?,
                initrd: self.initrd.as_deref().map(absolute).transpose()?,
                append: self.append.clone(),
            },
            None => BootRequest::Disk,
        };
        let request = CreateRequest {
            name: name.to_string(),
            boot,
            image: self.image.as_deref().map(absolute).transpose()?,
            disk_bytes: self.disk.map(|size| size.0),
            memory_bytes: self.memory.map(|size| size.0),
            cpus: self.cpus,
            bridge: self.bridge.clone(),
        };
        let machine: MachineInfo = context.client()?.post_with("machines", &request)?;
        context.out.result(&machine, |machine| {
            let disks = machine.disk_bytes.iter().map(|size| format!(", a disk of {}", bytes(*size)));
            format!(
                "{name} has {} of memory, {}{}; `watari start {name}` boots it",
                bytes(machine.memory_bytes),
                count(machine.cpus.into(), "CPU"),
                disks.collect::<String>(),
            )
        })
    }
}
