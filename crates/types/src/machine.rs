//! What a machine is made of, fixed at its creation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{MachineId, Region};

/// The region that holds the kernel a machine boots with.
pub const BOOT_KERNEL: &str = "boot/kernel";
/// The region that holds the initial ramdisk a machine boots with.
pub const BOOT_INITRD: &str = "boot/initrd";

/// A machine's name on its node: a letter or digit, then letters, digits, `-`, `_` and `.`, at most 48 bytes.
/// It is used as a folder's name, and 48 bytes keep sockets below the 107 that a Unix address can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

/// A text that may not be a machine's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot be a machine's name")]
pub struct NameError(pub String);

impl NameError {
    /// What a name may look like.
    pub const HINT: &str = "use up to 48 letters, digits, '-', '_' and '.', starting with a letter or digit";
}

impl MachineName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let ok = (1..=48).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if ok { Ok(MachineName(text.to_owned())) } else { Err(NameError(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for MachineName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> String {
        name.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount of bytes as people write it: `512M`, `4G`, `10GiB`, `1048576`. Suffixes are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemorySize(pub u64);

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size: write for example 512M or 10G");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(MemorySize).ok_or_else(bad)
    }
}

/// A machine's configuration: everything about it that its guest can notice and that must therefore be the
/// same wherever it runs. Part of every snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// The machine's identity.
    pub id: MachineId,
    /// Guest memory in bytes, a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// QEMU's versioned machine type, pinned at creation: `pc-q35-8.2`.
    pub machine_type: String,
    /// Watari's name of a portable CPU model: `x86-64-v2`.
    pub cpu_model: String,
    /// Which devices the machine has and where they sit. A number that changes when Watari's set of devices
    /// does, so that an old snapshot still gets the devices its guest knows.
    pub device_layout: u32,
    /// What it boots from.
    pub boot: Boot,
    /// Its disks, in order: `disk/0`, `disk/1`, …
    pub disks: Vec<DiskConfig>,
    /// Its network cards.
    pub nics: Vec<NicConfig>,
}

/// What a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Boot {
    /// The firmware boots the first disk.
    Disk,
    /// QEMU loads a Linux kernel directly; its content is the region [`BOOT_KERNEL`].
    Kernel {
        /// The kernel's region.
        kernel: Region,
        /// The initial ramdisk's region, if there is one.
        initrd: Option<Region>,
        /// The kernel's command line.
        append: String,
    },
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Its size in bytes, a multiple of the page size.
    pub bytes: u64,
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicConfig {
    /// Its hardware address, `52:54:00:xx:xx:xx`.
    pub mac: String,
}

impl MachineConfig {
    /// The regions whose content is on disk before the machine runs: disks and boot files.
    pub fn stored_regions(&self) -> Vec<Region> {
        let disks = self
            .disks
            .iter()
            .enumerate()
            .map(|(index, disk)| Region { name: crate::RegionName::disk(index), bytes: disk.bytes });
        let boot = match &self.boot {
            Boot::Disk => vec![],
            Boot::Kernel { kernel, initrd, .. } => {
                std::iter::once(kernel.clone()).chain(initrd.clone()).collect()
            }
        };
        disks.chain(boot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_machines_folder_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\0b", "-x", &"x".repeat(49), "naïve"] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "Web_2.test", &"x".repeat(48)] {
            assert!(good.parse::<MachineName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_and_never_overflow() {
        assert_eq!("512M".parse(), Ok(MemorySize(512 << 20)));
        assert_eq!("10GiB".parse(), Ok(MemorySize(10 << 30)));
        assert_eq!("4096".parse(), Ok(MemorySize(4096)));
        for bad in ["", "M", "-1G", "1X", "99999999999T", "1.5G"] {
            assert!(bad.parse::<MemorySize>().is_err(), "{bad:?}");
        }
    }
}
