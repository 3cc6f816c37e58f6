//! How much memory and disk the host has left.

use std::fs;
use std::path::Path;

use rustix::fs::statvfs;

use crate::{Error, Result};

/// Bytes of memory that a new process can have without swapping: `MemAvailable` of proc_meminfo(5).
pub(crate) fn available_memory() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| Error::Internal("/proc/meminfo does not say how much memory is available".to_owned()))
}

/// Bytes that an unprivileged user can still write below `path`, and the size of that file system.
pub(crate) fn disk_space(path: &Path) -> Result<(u64, u64)> {
    let stat = statvfs(path).map_err(|e| Error::io("inspect", path)(e.into()))?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_memory_and_disk() {
        assert!(available_memory().unwrap() > 1 << 20);
        let (free, total) = disk_space(Path::new("/")).unwrap();
        assert!(total > 0 && free <= total);
    }
}
