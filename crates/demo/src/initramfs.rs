//! The demo machine's first and only file system.

use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::modules::load_order;
use crate::{Error, Kernel};

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("../guest/init.sh");
const SERIAL_SHELL: &str = include_str!("../guest/serial-shell.sh");
const NET_EVENT: &str = include_str!("../guest/net-event.sh");
const DHCP_SCRIPT: &str = include_str!("../guest/dhcp.sh");
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/watari-guest"));

/// Kernels since 5.9 unpack it, twice as fast as gzip; higher levels cost seconds and save little.
const ZSTD_LEVEL: i32 = 9;

/// The initial ramdisk for `kernel`: busybox, drivers, and the demo program, as a zstd-compressed cpio archive
/// of some 2 MB. Equal inputs give equal bytes.
///
/// # Errors
/// Busybox or a driver is missing, or a file cannot be read.
pub fn initramfs(kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let modules = load_order(kernel)?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "run", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.character_device("dev/console", 5, 1);
    archive.program("bin/busybox", &read_busybox(Path::new(BUSYBOX))?);
    archive.link("bin/sh", "busybox");
    archive.program("bin/watari-guest", PROGRAM);
    archive.program("bin/serial-shell", SERIAL_SHELL.as_bytes());
    archive.program("bin/net-event", NET_EVENT.as_bytes());
    archive.program("bin/dhcp", DHCP_SCRIPT.as_bytes());
    archive.program("init", INIT.as_bytes());
    let mut order = String::new();
    for module in &modules {
        archive.file(&format!("lib/modules/{}", module.file), &module.bytes);
        order.push_str(&module.file);
        order.push('\n');
    }
    archive.file("lib/modules/order", order.as_bytes());
    zstd::encode_all(archive.finish().as_slice(), ZSTD_LEVEL).map_err(Error::Pack)
}

fn read_busybox(path: &Path) -> Result<Vec<u8>, Error> {
    let missing = || Error::NoBusybox { path: PathBuf::from(path) };
    let bytes = std::fs::read(path).map_err(|_| missing())?;
    if is_static_program(&bytes) { Ok(bytes) } else { Err(missing()) }
}

/// Whether these are an ELF program for x86-64 that asks for no interpreter, that is, for no dynamic linker.
fn is_static_program(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));
    let kinds = || -> Option<Vec<u32>> {
        let table = usize::try_from(u64_at(0x20)?).ok()?;
        let (size, count) = (usize::from(u16_at(0x36)?), usize::from(u16_at(0x38)?));
        (0..count).map(|index| u32_at(table.checked_add(index * size)?)).collect()
    };
    let x86_64 = elf.starts_with(b"\x7fELF\x02\x01") && u16_at(0x12) == Some(62);
    x86_64 && kinds().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_is_told_from_a_dynamic_one_and_from_no_program() {
        assert!(is_static_program(PROGRAM));
        assert!(!is_static_program(&std::fs::read("/proc/self/exe").unwrap()));
        assert!(!is_static_program(b"#!/bin/sh\n"));
        assert!(!is_static_program(&PROGRAM[..0x30]));
    }

    #[test]
    fn the_same_kernel_gives_the_same_bytes() {
        let kernel = crate::find_kernel().unwrap();
        let (first, second) = (initramfs(&kernel).unwrap(), initramfs(&kernel).unwrap());
        assert!(first == second && first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "{}", first.len());
    }
}
