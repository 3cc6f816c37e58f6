//! How two snapshots differ, as the API tells it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use watari_types::{Generation, MachineName, SnapshotId};

/// How two snapshots differ.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The older one, or the one named first; `null`: everything is new.
    pub before: Option<ComparedInfo>,
    /// The other one.
    pub after: ComparedInfo,
    /// The regions that differ, or that only one of them has.
    pub regions: Vec<RegionDifference>,
    /// The disks among them, with their files.
    pub disks: Vec<DiskDifference>,
}

/// A snapshot that is compared.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ComparedInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: SnapshotId,
    /// The name its machine had.
    #[schema(value_type = String)]
    pub name: MachineName,
    /// Its number in that machine's history.
    #[schema(value_type = u64)]
    pub generation: Generation,
    /// When it was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

/// A region that differs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RegionDifference {
    /// Its name.
    pub name: String,
    /// Its size before; `null` if it was not there.
    pub bytes_before: Option<u64>,
    /// Its size after; `null` if it is gone.
    pub bytes_after: Option<u64>,
    /// How many of its pages differ.
    pub changed_pages: u64,
    /// How many bytes these pages have.
    pub changed_bytes: u64,
}

/// A disk that differs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiskDifference {
    /// Its region's name.
    pub name: String,
    /// Those of its partitions that differ, or that only one snapshot has; or all of the disk.
    pub volumes: Vec<VolumeDifference>,
}

/// A partition, or a disk without partitions, that differs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeDifference {
    /// The partition's number; `null`: the disk has no partitions.
    pub partition: Option<u32>,
    /// What it holds: `ext4`, `xfs`, …; `null` if that is not known.
    pub file_system: Option<String>,
    /// How many of its pages differ.
    pub changed_pages: u64,
    /// Why files are missing in the list, or why there is none.
    pub problem: Option<String>,
    /// Files that were added.
    pub added: u64,
    /// Files that were removed.
    pub removed: u64,
    /// Files that are in both and differ.
    pub changed: u64,
    /// These files, by path.
    pub files: Vec<FileDifference>,
    /// How many of them are not listed because there are too many.
    pub unlisted: u64,
}

/// A file that differs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileDifference {
    /// Its path within the file system, with U+FFFD for what is not UTF-8.
    pub path: String,
    /// The path's bytes in hex, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// What became of it.
    pub change: FileChange,
    /// What of it differs, if it is in both.
    pub what: Vec<FileAspect>,
    /// What it was.
    pub before: Option<FileInfo>,
    /// What it is.
    pub after: Option<FileInfo>,
}

/// What became of a file. One that was given another name was removed there and added here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there, and not the same.
    Changed,
}

/// What of a file can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileAspect {
    /// It is another kind of file.
    Kind,
    /// Its content, or a link's target; or another file took its place.
    Content,
    /// Its permissions.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its times, or what else changes these: attributes, links to it.
    Times,
}

/// A file at one time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Its length.
    pub bytes: u64,
    /// Its permissions, as a number.
    pub mode: u16,
    /// Who owns it.
    pub uid: u32,
    /// The group that does.
    pub gid: u32,
    /// When its content changed last, in seconds since 1970.
    pub modified_unix_s: i64,
}

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
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
