//! Regions: the named, page-aligned things a machine consists of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pages_for;

/// A region's name: its kind, a slash, and a name within the kind, such as `ram/m0`, `ram/vga.vram`, `disk/0`
/// or `boot/kernel`. At most 200 bytes of printable ASCII without blanks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegionName(String);

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegionKind {
    /// A RAM block of the emulator: guest memory, video memory, firmware.
    Ram,
    /// A block device.
    Disk,
    /// A file the machine is booted with: kernel or initial ramdisk. Never changes.
    Boot,
}

/// A text that should have been a region's name and is not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a region's name: expected ram/…, disk/… or boot/…")]
pub struct RegionNameError(pub String);

impl RegionName {
    /// The RAM block that QEMU calls `block`.
    pub fn ram(block: &str) -> Result<Self, RegionNameError> {
        format!("ram/{block}").parse()
    }

    /// The `index`th disk.
    pub fn disk(index: usize) -> Self {
        RegionName(format!("disk/{index}"))
    }

    /// What the region is made of.
    pub fn kind(&self) -> RegionKind {
        match self.0.as_bytes()[0] {
            b'r' => RegionKind::Ram,
            b'd' => RegionKind::Disk,
            _ => RegionKind::Boot,
        }
    }

    /// The name within the kind: `m0`, `0`, `kernel`.
    pub fn rest(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegionName {
    type Err = RegionNameError;

    fn from_str(text: &str) -> Result<Self, RegionNameError> {
        let known = matches!(text.split_once('/'), Some(("ram" | "disk" | "boot", rest)) if !rest.is_empty());
        if known && text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(RegionName(text.to_owned()))
        } else {
            Err(RegionNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for RegionName {
    type Error = RegionNameError;

    fn try_from(text: String) -> Result<Self, RegionNameError> {
        text.parse()
    }
}

impl From<RegionName> for String {
    fn from(name: RegionName) -> String {
        name.0
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A region and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name, unique within the machine.
    pub name: RegionName,
    /// Its length in bytes; the last page is padded with zeros.
    pub bytes: u64,
}

impl Region {
    /// How many pages the region has.
    pub fn pages(&self) -> u64 {
        pages_for(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_kind_and_reject_what_is_not_a_region() {
        assert_eq!(RegionName::ram("0000:00:02.0/vga.vram").unwrap().kind(), RegionKind::Ram);
        assert_eq!(RegionName::disk(0).as_str(), "disk/0");
        assert_eq!("boot/kernel".parse::<RegionName>().unwrap().kind(), RegionKind::Boot);
        for bad in ["", "ram", "ram/", "tape/0", "ram/a b", "disk/\n"] {
            assert!(bad.parse::<RegionName>().is_err(), "{bad:?}");
        }
    }
}
