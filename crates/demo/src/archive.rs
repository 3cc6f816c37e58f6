//! A cpio archive in the "newc" form, which is what Linux unpacks into its first file system.
//!
//! The format: <https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html>.

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
const TRAILER: &str = "TRAILER!!!";

/// An archive that grows. Times and owners are zero and inodes are counted, so the same content gives the same
/// bytes.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, (0, 0), &[]);
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), content);
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PLAIN, (0, 0), content);
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, (0, 0), target.as_bytes());
    }

    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (inode, links, size, name) = (self.entries, 1, content.len(), path.len() + 1);
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}{0:08x}{0:08x}\
             {major:08x}{minor:08x}{name:08x}{0:08x}",
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_unpacks_what_was_packed() {
        let mut archive = Archive::default();
        archive.folder("d");
        archive.file("d/odd", b"12345");
        archive.link("d/l", "odd");
        archive.program("d/p", b"#!/bin/sh\n");
        let folder = tempfile::tempdir().unwrap();
        let mut unpack = Command::new("/bin/busybox")
            .args(["cpio", "-i"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        unpack.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        assert!(unpack.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("d/l")).unwrap(), b"12345");
        assert_eq!(std::fs::read(folder.path().join("d/p")).unwrap(), b"#!/bin/sh\n");
    }
}
