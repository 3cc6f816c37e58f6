//! Inodes: all that a file is but its name and content.

use super::superblock::Superblock;
use crate::bytes::{copy, le16, le32};
use crate::error::{Result, damaged};

/// The inode of the root directory.
pub(crate) const ROOT: u32 = 2;

const FLAG_EXTENTS: u32 = 0x8_0000;

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
}

impl Kind {
    fn of(mode: u16) -> Option<Kind> {
        Some(match mode >> 12 {
            0x8 => Kind::File,
            0x4 => Kind::Directory,
            0xA => Kind::Symlink,
            0x2 => Kind::CharacterDevice,
            0x6 => Kind::BlockDevice,
            0x1 => Kind::Pipe,
            0xC => Kind::Socket,
            _ => return None,
        })
    }
}

/// An inode that is in use.
pub(crate) struct Inode {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    /// Permissions, with the set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The content's length in bytes.
    pub(crate) bytes: u64,
    /// When the content, and when anything at all changed last, as they are stored: two words each.
    pub(crate) modified: [u32; 2],
    pub(crate) changed: [u32; 2],
    pub(crate) has_extents: bool,
    /// Where the content is, a short symbolic link's target, or a device's numbers.
    pub(crate) place: [u8; 60],
}

impl Inode {
    pub(super) fn parse(number: u32, bytes: &[u8], superblock: &Superblock) -> Result<Inode> {
        let mode = le16(bytes, 0);
        let Some(kind) = Kind::of(mode) else {
            return damaged(format!("inode {number} is none of a file"));
        };
        let is_wide = kind == Kind::File || kind == Kind::Directory && superblock.has_large_directories;
        let high = if is_wide { le32(bytes, 108) } else { 0 };
        // What follows the first 128 bytes is used as far as the inode says itself.
        let end = 128 + usize::from(le16(bytes, 128));
        let more = |at: usize| if at + 4 <= end { le32(bytes, at) } else { 0 };
        Ok(Inode {
            number,
            kind,
            mode: mode & 0o7777,
            uid: u32::from(le16(bytes, 120)) << 16 | u32::from(le16(bytes, 2)),
            gid: u32::from(le16(bytes, 122)) << 16 | u32::from(le16(bytes, 24)),
            bytes: u64::from(high) << 32 | u64::from(le32(bytes, 4)),
            modified: [le32(bytes, 16), more(136)],
            changed: [le32(bytes, 12), more(132)],
            has_extents: le32(bytes, 32) & FLAG_EXTENTS != 0,
            place: copy(bytes, 40),
        })
    }

    /// When the content changed last, in seconds since 1970.
    pub(crate) fn modified_unix_s(&self) -> i64 {
        let [seconds, more] = self.modified;
        i64::from(seconds.cast_signed()) + (i64::from(more & 3) << 32)
    }

    /// Whether `place` says where the content is.
    pub(crate) fn has_blocks(&self) -> bool {
        match self.kind {
            Kind::File | Kind::Directory => self.bytes > 0,
            // A shorter target lies in the inode itself.
            Kind::Symlink => self.bytes >= 60,
            _ => false,
        }
    }
}
