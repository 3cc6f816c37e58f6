//! File systems on which there is not much room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system of its own at a folder of a home; unmounted when dropped, before the home is removed.
pub struct Small(pub PathBuf);

impl Small {
    /// `None` where mounting is not allowed.
    pub fn mount(home: &Path, folder: &str, size: &str) -> Option<Small> {
        let folder = home.join(folder);
        fs::create_dir_all(&folder).unwrap();
        let small = Small(folder);
        small.mount_with(&format!("size={size},mode=700")).then_some(small)
    }

    fn mount_with(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }

    pub fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap().success());
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes space away until only so much is left. Returns the file that does.
    pub fn leave(&self, bytes: u64) -> PathBuf {
        let ballast = self.0.join("ballast");
        fs::write(&ballast, vec![1; self.free().saturating_sub(bytes) as usize]).unwrap();
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
