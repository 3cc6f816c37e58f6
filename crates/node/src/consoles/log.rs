//! The file to which QEMU writes what a console prints, and where in it a connection begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::recent::{RECENT, clean_start};

/// A log, and how much of it was told.
pub(super) struct Log {
    path: PathBuf,
    told: u64,
}

/// A log's last bytes, of those that were not told.
pub(super) struct Logged {
    from: u64,
    pub(super) bytes: Vec<u8>,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Log {
        Log { path, told: 0 }
    }

    /// What is in it and was not told: of that the last 64 KiB. Nothing if it cannot be read.
    pub(super) fn ahead(&mut self) -> Logged {
        self.read().unwrap_or_else(|_| Logged { from: self.told, bytes: Vec::new() })
    }

    fn read(&mut self) -> io::Result<Logged> {
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        // What was printed while the disk was full is not in it.
        self.told = self.told.min(length);
        let from = self.told.max(length.saturating_sub(RECENT as u64));
        let mut bytes = vec![0; (length - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        let cut = if from > self.told { clean_start(&bytes) } else { 0 };
        bytes.drain(..cut);
        Ok(Logged { from: from + cut as u64, bytes })
    }

    /// The first `bytes` of what is in it were told.
    pub(super) fn told(&mut self, logged: &Logged, bytes: usize) {
        self.told = logged.from + bytes as u64;
    }

    /// All of it was told.
    pub(super) fn told_all(&mut self) {
        self.told = std::fs::metadata(&self.path).map_or(self.told, |file| file.len());
    }
}

/// How many bytes were logged before those that came over a connection, of which the last may not be logged so far.
///
/// If what came is all of the log's end, its length tells. It does not while QEMU goes on printing: then it is the first place where
/// both agree, which is another one only if what is printed repeats itself.
pub(super) fn seam(logged: &[u8], came: &[u8]) -> usize {
    let agree = |at: &usize| logged[*at..].iter().zip(came).all(|(logged, came)| logged == came);
    let by_length = logged.len().checked_sub(came.len()).filter(agree);
    by_length.or_else(|| (0..logged.len()).find(agree)).unwrap_or(logged.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_what_is_new_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        let mut log = Log::new(path.clone());
        assert_eq!(log.ahead().bytes, b"");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let logged = log.ahead();
        log.told(&logged, 4);
        assert_eq!(log.ahead().bytes, b"two\n");
        log.told_all();
        assert_eq!(log.ahead().bytes, b"");
        let line = "a long line, ünd another\n";
        std::fs::write(&path, format!("one\ntwo\n{}", line.repeat(10_000))).unwrap();
        let logged = log.ahead();
        assert!(logged.bytes.starts_with(line.as_bytes()) && logged.bytes.len() > RECENT - line.len());
        log.told(&logged, logged.bytes.len());
        assert_eq!(log.ahead().bytes, b"");
        std::fs::write(&path, "less").unwrap();
        assert_eq!(log.ahead().bytes, b"");
        std::fs::write(&path, "less and more").unwrap();
        assert_eq!(log.ahead().bytes, b" and more");
    }

    #[test]
    fn the_seam_is_where_what_came_begins() {
        assert_eq!(seam(b"", b"abc"), 0);
        assert_eq!(seam(b"abc", b"abc"), 0);
        assert_eq!(seam(b"before abc", b"abc"), 7);
        assert_eq!(seam(b"before ab", b"abc"), 7);
        assert_eq!(seam(b"before", b"abc"), 6);
        assert_eq!(seam(b"before abc and more", b"abc"), 7);
        assert_eq!(seam(b"....", b"."), 3, "all that came is the end");
    }
}
