//! How a disk is divided: GPT (UEFI 2.10, 5.3), MBR with its logical partitions, or not at all.

use crate::Source;
use crate::bytes::{le32, le64};
use crate::error::Result;
use crate::source::Window;

/// Partitions that are looked at; Linux gives names to no more.
const MOST_PARTITIONS: usize = 256;
const SECTOR: u64 = 512;

/// How a disk is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// It has no partitions: what it holds begins at its first byte.
    Whole,
    /// It has these, none of them empty, and each at least begins on the disk.
    Partitions(Vec<Partition>),
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts them, from 1.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// How the disk is divided. A table that makes no sense counts as none.
///
/// # Errors
/// The disk cannot be read.
pub fn layout(disk: &dyn Source) -> Result<Layout> {
    let window = Window::all(disk);
    for sector in [SECTOR, 4096] {
        if let Some(partitions) = gpt(&window, sector)? {
            return Ok(Layout::Partitions(partitions));
        }
    }
    Ok(mbr(&window)?.map_or(Layout::Whole, Layout::Partitions))
}

/// The partition that lies from sector `first` on, if it begins on the disk.
fn partition(disk: &Window<'_>, number: usize, first: u64, count: u64, sector: u64) -> Option<Partition> {
    let start = first.checked_mul(sector).filter(|start| *start < disk.bytes())?;
    let bytes = count.saturating_mul(sector).min(disk.bytes() - start);
    Some(Partition { number: u32::try_from(number).ok()?, start, bytes }).filter(|found| found.bytes > 0)
}

fn gpt(disk: &Window<'_>, sector: u64) -> Result<Option<Vec<Partition>>> {
    let header = disk.peek::<92>(sector)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let (table, count, size) = (le64(&header, 72), le32(&header, 80), u64::from(le32(&header, 84)));
    if !(128..=4096).contains(&size) {
        return Ok(None);
    }
    let Some(table) = table.checked_mul(sector) else { return Ok(None) };
    let mut partitions = Vec::new();
    for index in 0..(count as usize).min(MOST_PARTITIONS) {
        let Some(at) = table.checked_add(index as u64 * size) else { break };
        let entry = disk.peek::<128>(at)?;
        let (first, last) = (le64(&entry, 32), le64(&entry, 40));
        if entry[..16] != [0; 16] && first <= last {
            let count = (last - first).saturating_add(1);
            partitions.extend(partition(disk, index + 1, first, count, sector));
        }
    }
    Ok(Some(partitions))
}

/// An entry of an MBR.
struct Entry {
    status: u8,
    kind: u8,
    first: u32,
    sectors: u32,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The entries of the table in a sector, if it has one.
fn entries(sector: &[u8; 512]) -> Option<[Entry; 4]> {
    let entry = |index: usize| {
        let bytes = &sector[446 + index * 16..][..16];
        Entry { status: bytes[0], kind: bytes[4], first: le32(bytes, 8), sectors: le32(bytes, 12) }
    };
    (sector[510..] == [0x55, 0xAA]).then(|| [entry(0), entry(1), entry(2), entry(3)])
}

/// `None` where there is no table. The boot sector of a FAT ends like an MBR, but has text where an MBR has entries.
fn mbr(disk: &Window<'_>) -> Result<Option<Vec<Partition>>> {
    let Some(entries) = entries(&disk.peek(0)?) else { return Ok(None) };
    let is_sound = |entry: &Entry| {
        let is_used = entry.kind != 0;
        matches!(entry.status, 0 | 0x80) && is_used == (entry.sectors != 0) && is_used == (entry.first != 0)
    };
    if !entries.iter().all(is_sound) || entries.iter().all(|entry| entry.kind == 0) {
        return Ok(None);
    }
    let mut partitions = Vec::new();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.kind != 0) {
        if entry.is_extended() {
            logical(disk, u64::from(entry.first), &mut partitions)?;
        } else {
            partitions.extend(partition(disk, index + 1, entry.first.into(), entry.sectors.into(), SECTOR));
        }
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(Some(partitions))
}

/// The partitions in an extended one: a chain of tables, each with a partition and the place of the next table.
fn logical(disk: &Window<'_>, extended: u64, partitions: &mut Vec<Partition>) -> Result<()> {
    let mut table = extended;
    for number in 5..MOST_PARTITIONS {
        let Some(at) = table.checked_mul(SECTOR).filter(|at| *at < disk.bytes()) else { break };
        let Some([entry, next, ..]) = entries(&disk.peek(at)?) else { break };
        if entry.kind != 0 && entry.sectors != 0 {
            let first = table + u64::from(entry.first);
            partitions.extend(partition(disk, number, first, entry.sectors.into(), SECTOR));
        }
        // A chain that leads back is cut.
        let following = extended + u64::from(next.first);
        if next.kind == 0 || following <= table {
            break;
        }
        table = following;
    }
    Ok(())
}
