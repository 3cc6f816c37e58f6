//! What a volume holds, by the marks that blkid(8) looks at, too.

use crate::error::Result;
use crate::source::Window;

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// ext2, ext3 or ext4.
    Ext4,
    /// Something that is not read, by its usual name.
    Other(&'static str),
    /// Nothing that is known.
    Unknown,
}

/// Where something has its mark.
struct Mark {
    at: u64,
    bytes: &'static [u8],
    content: Content,
}

const fn mark(name: &'static str, at: u64, bytes: &'static [u8]) -> Mark {
    Mark { at, bytes, content: Content::Other(name) }
}

/// The longest mark, in bytes.
const LONGEST: usize = 10;

/// What lies under a file system comes first, what may be left of an older one last.
const MARKS: [Mark; 19] = [
    mark("LUKS (encrypted)", 0, b"LUKS\xBA\xBE"),
    mark("LVM", 0, b"LABELONE"),
    mark("LVM", 512, b"LABELONE"),
    mark("LVM", 1024, b"LABELONE"),
    mark("LVM", 1536, b"LABELONE"),
    mark("Linux RAID", 0, &[0xFC, 0x4E, 0x2B, 0xA9]),
    mark("Linux RAID", 4096, &[0xFC, 0x4E, 0x2B, 0xA9]),
    mark("xfs", 0, b"XFSB"),
    mark("swap", 4086, b"SWAPSPACE2"),
    mark("f2fs", 1024, &[0x10, 0x20, 0xF5, 0xF2]),
    mark("ntfs", 3, b"NTFS    "),
    mark("exfat", 3, b"EXFAT   "),
    mark("vfat", 54, b"FAT12   "),
    mark("vfat", 54, b"FAT16   "),
    mark("vfat", 82, b"FAT32   "),
    mark("squashfs", 0, b"hsqs"),
    Mark { at: 1024 + 56, bytes: &[0x53, 0xEF], content: Content::Ext4 },
    mark("btrfs", 65536 + 64, b"_BHRfS_M"),
    mark("iso9660", 32768 + 1, b"CD001"),
];

/// What the volume holds.
///
/// # Errors
/// It cannot be read.
pub fn content(volume: &Window<'_>) -> Result<Content> {
    for Mark { at, bytes, content } in &MARKS {
        if volume.peek::<LONGEST>(*at)?.starts_with(bytes) {
            return Ok(*content);
        }
    }
    Ok(Content::Unknown)
}
