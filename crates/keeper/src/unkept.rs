//! What a machine that does not run leaves behind when it is restored: its disks.

use std::io;

use watari_disk::Disk;

use crate::Result;
use crate::home::MachineHome;

/// Whether any of the machine's `disks` disks has content that may be in no snapshot. The machine must not run.
///
/// # Errors
/// A disk cannot be opened. One that is not there has nothing to keep: it was never made, or a restore was cut short.
pub fn has_unkept_disks(home: &MachineHome, disks: usize) -> Result<bool> {
    let mut has_unkept = false;
    for index in 0..disks {
        match Disk::open(&home.disk(index), None) {
            Ok(disk) => has_unkept |= !disk.pending().is_empty(),
            Err(watari_disk::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                // Of a machine that lacks a disk, the others are no state that anything could go on from.
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(has_unkept)
}
