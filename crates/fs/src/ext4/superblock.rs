//! The superblock: 1,024 bytes that say how the rest is laid out.

use crate::bytes::{copy, le16, le32};
use crate::error::{Error, Result, damaged};

pub(super) const MAGIC: u16 = 0xEF53;

const COMPAT_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const INCOMPAT_FILE_TYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_GROUPS: u32 = 0x10;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_LARGE_DIRECTORIES: u32 = 0x4000;

/// What makes no difference to a reader: that other hosts are kept out, groups of groups, attributes in inodes, where the
/// checksums' seed is, encrypted files (their names are not those that the guest shows), names that ignore case.
const INCOMPAT_HARMLESS: u32 = 0x100 | 0x200 | 0x400 | 0x2000 | 0x1_0000 | 0x2_0000;

const INCOMPAT_KNOWN: u32 = INCOMPAT_FILE_TYPE
    | INCOMPAT_RECOVER
    | INCOMPAT_META_GROUPS
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | INCOMPAT_LARGE_DIRECTORIES
    | INCOMPAT_HARMLESS;

/// Names of what is not understood, as tune2fs(8) has them.
const UNKNOWN: [(u32, &str); 4] =
    [(0x1, "compression"), (0x8, "journal_dev"), (0x1000, "dirdata"), (0x8000, "inline_data")];

/// Which groups begin with a copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backups {
    All,
    /// 0, 1, and the powers of 3, 5 and 7.
    Sparse,
    /// 0 and these.
    Two(u32, u32),
}

/// What a reader needs of it.
pub(super) struct Superblock {
    pub(super) name: &'static str,
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    pub(super) first_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes: u32,
    pub(super) used_inodes: u64,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u64,
    pub(super) descriptor_size: u64,
    /// The first block of descriptors that lies in the groups it describes.
    pub(super) first_meta_block: Option<u64>,
    pub(super) backups: Backups,
    pub(super) has_file_types: bool,
    pub(super) has_large_directories: bool,
    pub(super) needs_recovery: bool,
    pub(super) journal: u32,
    uuid: [u8; 16],
}

impl Superblock {
    /// Reads and checks the superblock of a file system in `window_bytes` bytes.
    pub(super) fn parse(bytes: &[u8; 1024], window_bytes: u64) -> Result<Superblock> {
        if le16(bytes, 56) != MAGIC {
            return damaged("it has no superblock");
        }
        let (compat, incompat, ro_compat) = (le32(bytes, 92), le32(bytes, 96), le32(bytes, 100));
        check_features(incompat)?;
        let is_64bit = incompat & INCOMPAT_64BIT != 0;
        let log = le32(bytes, 24);
        if log > 6 {
            return damaged("its blocks are larger than 64 KiB");
        }
        let block_size = 1024_u64 << log;
        let blocks_high = if is_64bit { le32(bytes, 336) } else { 0 };
        let inodes = le32(bytes, 0);
        let found = Superblock {
            name: name(compat, incompat),
            block_size,
            blocks: u64::from(blocks_high) << 32 | u64::from(le32(bytes, 4)),
            first_block: le32(bytes, 20).into(),
            blocks_per_group: le32(bytes, 32).into(),
            inodes,
            used_inodes: inodes.saturating_sub(le32(bytes, 16)).into(),
            inodes_per_group: le32(bytes, 40),
            inode_size: if le32(bytes, 76) == 0 { 128 } else { le16(bytes, 88).into() },
            descriptor_size: if is_64bit { le16(bytes, 254).into() } else { 32 },
            first_meta_block: (incompat & INCOMPAT_META_GROUPS != 0).then(|| le32(bytes, 260).into()),
            backups: backups(bytes, compat, ro_compat),
            has_file_types: incompat & INCOMPAT_FILE_TYPE != 0,
            has_large_directories: incompat & INCOMPAT_LARGE_DIRECTORIES != 0,
            needs_recovery: compat & COMPAT_JOURNAL != 0 && incompat & INCOMPAT_RECOVER != 0,
            journal: le32(bytes, 224),
            uuid: copy(bytes, 104),
        };
        found.check(window_bytes)?;
        Ok(found)
    }

    fn check(&self, window_bytes: u64) -> Result<()> {
        let is_size =
            |size: u64, least: u64| size.is_power_of_two() && (least..=self.block_size).contains(&size);
        if !is_size(self.inode_size, 128) || !is_size(self.descriptor_size, 32) {
            return damaged("its inodes or groups have no size that there is");
        }
        if self.inodes_per_group == 0 || self.blocks_per_group == 0 {
            return damaged("its groups are empty");
        }
        match self.blocks.checked_mul(self.block_size) {
            Some(bytes) if bytes <= window_bytes => Ok(()),
            _ => damaged("it is larger than what it lies on"),
        }
    }

    /// Whether both are of one file system that was laid out only once.
    pub(super) fn is_alike(&self, other: &Superblock) -> bool {
        let key =
            |s: &Superblock| (s.uuid, s.block_size, s.inode_size, s.inodes_per_group, s.blocks_per_group);
        key(self) == key(other)
    }
}

fn check_features(incompat: u32) -> Result<()> {
    let unknown = incompat & !INCOMPAT_KNOWN;
    if unknown == 0 {
        return Ok(());
    }
    let named = UNKNOWN.iter().find(|(bit, _)| unknown & bit != 0);
    let name = named.map_or_else(|| format!("{unknown:#x}"), |(_, name)| (*name).to_owned());
    Err(Error::Unsupported(format!("the feature {name}")))
}

fn name(compat: u32, incompat: u32) -> &'static str {
    if incompat & !(INCOMPAT_FILE_TYPE | INCOMPAT_RECOVER | INCOMPAT_META_GROUPS) != 0 {
        "ext4"
    } else if compat & COMPAT_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    }
}

fn backups(bytes: &[u8; 1024], compat: u32, ro_compat: u32) -> Backups {
    if compat & COMPAT_SPARSE_SUPER2 != 0 {
        Backups::Two(le32(bytes, 588), le32(bytes, 592))
    } else if ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
        Backups::Sparse
    } else {
        Backups::All
    }
}

/// Whether a group begins with a copy of the superblock.
pub(super) fn has_superblock(backups: Backups, group: u64) -> bool {
    let powers = |base: u64| std::iter::successors(Some(base), move |power| power.checked_mul(base));
    let is_power_of =
        |base: u64| powers(base).take_while(|power| *power <= group).any(|power| power == group);
    match backups {
        Backups::All => true,
        Backups::Sparse => group <= 1 || [3, 5, 7].into_iter().any(is_power_of),
        Backups::Two(one, other) => group == 0 || group == one.into() || group == other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_copies_are_in_the_groups_that_mke2fs_gives_them() {
        let with: Vec<u64> = (0..100).filter(|group| has_superblock(Backups::Sparse, *group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81]);
        assert!(has_superblock(Backups::Two(1, 8), 8) && !has_superblock(Backups::Two(1, 8), 2));
    }
}
