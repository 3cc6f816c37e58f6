//! The devices of a machine and where they sit: layouts 1 and 2.
//!
//! Guests remember device addresses and snapshots contain device state by address, so nothing in a layout that
//! was ever released may change. A new set of devices is a new layout with a new number, next to these.
//!
//! ```text
//! pcie.0  01 VGA, 16 MiB                      08…0f  virtio-blk disk0…disk7
//!         02 virtio-rng                       10…17  root ports port0…port7, each with virtio-net
//!         03 virtio-balloon                          net0…net7 behind it, so that it can be replaced
//!         04 virtio-serial (guest agent)      1f     the chipset
//! isa     serial0 at 3f8, irq 4        no slot: vmgenid0, fw_cfg opt/org.watari/identity
//!
//! from 2  05 xhci, and a tablet on it: a pointer that is where the person's is
//!         04 virtio-serial (desktop agent, port 2)
//! ```

use serde_json::{Value, json};
use watari_types::MachineConfig;

use crate::Error;

/// The number of the layout that new machines get.
pub const DEVICE_LAYOUT: u32 = 2;
/// How many disks a machine may have.
pub const MAX_DISKS: usize = 8;
/// How many network cards a machine may have.
pub const MAX_NICS: usize = 8;

/// Watari's name of the CPU model that new machines get.
///
/// It is QEMU's `qemu64` and what the [x86-64 psABI](https://gitlab.com/x86-psABIs/x86-64-ABI) asks for at level
/// 2: CMPXCHG16B, LAHF/SAHF, POPCNT, SSE3, SSSE3, SSE4.1 and SSE4.2, all of which TCG emulates and every KVM
/// host of the last fifteen years has. `svm` and `x2apic` are left out because only one of the two accelerators
/// would add them by itself.
pub const CPU_MODEL: &str = "x86-64-v2";

/// Names of character devices in the layout, to be defined by whoever builds the command line.
pub(crate) const SERIAL_CHARDEV: &str = "serial0";
pub(crate) const AGENT_CHARDEV: &str = "agent0";
pub(crate) const DESKTOP_CHARDEV: &str = "desktop0";
/// The name under which a Linux guest looks for the port of its agent,
const AGENT_PORT: &str = "org.qemu.guest_agent.0";
/// and for that of the one that shares the clipboard.
const DESKTOP_PORT: &str = "com.redhat.spice.0";

/// A kernel that QEMU loads takes boot index 0.
const FIRST_BOOT_INDEX: usize = 1;

/// Refuses machines that no layout describes.
pub(crate) fn check(config: &MachineConfig) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Config(reason));
    if !(1..=DEVICE_LAYOUT).contains(&config.device_layout) {
        return refuse(format!(
            "its devices are of layout {}, and only those up to {DEVICE_LAYOUT} are known",
            config.device_layout
        ));
    }
    if config.disks.len() > MAX_DISKS || config.nics.len() > MAX_NICS {
        return refuse(format!(
            "{} disks and {} network cards, at most {MAX_DISKS} and {MAX_NICS} fit",
            config.disks.len(),
            config.nics.len()
        ));
    }
    if config.cpus == 0 || config.memory_bytes == 0 || !config.memory_bytes.is_multiple_of(1 << 20) {
        return refuse(format!("{} CPUs and {} bytes of memory", config.cpus, config.memory_bytes));
    }
    Ok(())
}

/// QEMU's words for one of Watari's CPU models.
pub(crate) fn cpu(model: &str) -> Result<&'static str, Error> {
    match model {
        CPU_MODEL => Ok("qemu64,+cx16,+lahf-lm,+popcnt,+pni,+ssse3,+sse4.1,+sse4.2,-svm,-x2apic"),
        _ => Err(Error::Config(format!("its CPU model {model:?} is not known; {CPU_MODEL:?} is"))),
    }
}

/// Every device of a machine, in the order in which QEMU creates them.
pub(crate) fn devices(config: &MachineConfig, vmgenid: &str) -> Vec<Value> {
    let mut devices = layout_1(config, vmgenid);
    if config.device_layout >= 2 {
        devices.extend(added_by_layout_2());
    }
    devices
}

/// A virtio tablet would be there for Linux alone, and save the state of 1,024 queues.
fn added_by_layout_2() -> [Value; 3] {
    [
        json!({"driver": "qemu-xhci", "id": "usb0", "bus": "pcie.0", "addr": "0x5", "p2": 4, "p3": 4}),
        json!({"driver": "usb-tablet", "id": "tablet0", "bus": "usb0.0", "port": "1"}),
        json!({"driver": "virtserialport", "id": "desktop0", "bus": "vserial0.0", "nr": 2,
            "chardev": DESKTOP_CHARDEV, "name": DESKTOP_PORT}),
    ]
}

/// Whether machines of that layout have a port for a desktop agent.
pub(crate) fn has_desktop_port(layout: u32) -> bool {
    layout >= 2
}

fn layout_1(config: &MachineConfig, vmgenid: &str) -> Vec<Value> {
    // A modern virtio-pci device saves the state of 1,024 queues, whether it has them or not: 30 KB and half a
    // millisecond of every pause. Devices whose speed does not matter are legacy ones, which save what they have.
    let mut devices = vec![
        json!({"driver": "VGA", "id": "vga0", "bus": "pcie.0", "addr": "0x1", "vgamem_mb": 16}),
        json!({"driver": "virtio-rng-pci", "id": "rng0", "bus": "pcie.0", "addr": "0x2", "rng": "rng0-source",
            "disable-modern": true}),
        json!({"driver": "virtio-balloon-pci", "id": "balloon0", "bus": "pcie.0", "addr": "0x3",
            "free-page-reporting": true, "deflate-on-oom": true, "disable-modern": true}),
        json!({"driver": "virtio-serial-pci", "id": "vserial0", "bus": "pcie.0", "addr": "0x4", "max_ports": 4,
            "disable-modern": true}),
        json!({"driver": "virtserialport", "id": "agent0", "bus": "vserial0.0", "nr": 1,
            "chardev": AGENT_CHARDEV, "name": AGENT_PORT}),
        json!({"driver": "isa-serial", "id": "serial0", "iobase": 0x3f8, "irq": 4, "index": 0,
            "chardev": SERIAL_CHARDEV}),
        json!({"driver": "vmgenid", "id": "vmgenid0", "guid": vmgenid}),
    ];
    for index in 0..config.disks.len() {
        let slot = format!("{:#x}", 0x8 + index);
        devices.push(json!({"driver": "virtio-blk-pci", "id": disk_id(index), "bus": "pcie.0", "addr": slot,
            "drive": disk_id(index), "iothread": disk_thread(index), "bootindex": FIRST_BOOT_INDEX + index,
            "werror": "stop", "rerror": "stop"}));
    }
    for (index, nic) in config.nics.iter().enumerate() {
        let slot = format!("{:#x}", 0x10 + index);
        devices.push(json!({"driver": "pcie-root-port", "id": format!("port{index}"), "bus": "pcie.0",
            "addr": slot, "chassis": index + 1, "slot": index + 1}));
        devices.push(nic_device(index, &nic.mac));
    }
    devices
}

/// One network card, for the command line and for plugging it in later. It has no boot ROM, so that plugging it
/// does not add a RAM block.
pub(crate) fn nic_device(index: usize, mac: &str) -> Value {
    json!({"driver": "virtio-net-pci", "id": nic_id(index), "bus": format!("port{index}"), "addr": "0x0",
        "netdev": nic_backend(index), "mac": mac, "romfile": ""})
}

/// The device id of the `index`th network card.
pub(crate) fn nic_id(index: usize) -> String {
    format!("net{index}")
}

/// The id of the host's end of the `index`th network card.
pub(crate) fn nic_backend(index: usize) -> String {
    format!("net{index}-host")
}

/// The thread of the host that serves the `index`th disk's requests; neither guest nor snapshot know of it. Without one
/// they wait for the thread that does everything else.
pub(crate) fn disk_thread(index: usize) -> String {
    format!("disk{index}-thread")
}

/// The device id, and the block node name, of the `index`th disk.
pub(crate) fn disk_id(index: usize) -> String {
    format!("disk{index}")
}
