//! Which pages have arrived: a bit for each, in memory and in a file that outlives the keeper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const BITS: u32 = 64;

/// A bit for each page.
struct Bits(Vec<AtomicU64>);

impl Bits {
    fn get(&self, page: u32) -> bool {
        self.0.get((page / BITS) as usize).is_some_and(|word| word.load(Ordering::SeqCst) & bit(page) != 0)
    }

    /// Whether it was not set before.
    fn set(&self, page: u32) -> bool {
        let word = self.0.get((page / BITS) as usize);
        word.is_some_and(|word| word.fetch_or(bit(page), Ordering::SeqCst) & bit(page) == 0)
    }

    fn clear(&self, page: u32) {
        if let Some(word) = self.0.get((page / BITS) as usize) {
            word.fetch_and(!bit(page), Ordering::SeqCst);
        }
    }
}

fn bit(page: u32) -> u64 {
    1 << (page % BITS)
}

/// Which pages somebody is putting or has put, and which have arrived.
pub(super) struct Marks {
    claimed: Bits,
    arrived: Bits,
    count: AtomicU64,
    /// Little-endian words of `arrived`. It need not survive a loss of power: no guest does.
    file: Mutex<File>,
}

impl Marks {
    /// Marks for pages below `pages`, none of them set.
    pub(super) fn create(path: &Path, pages: u32) -> io::Result<Marks> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Marks::new(file, pages))
    }

    /// The marks that another keeper left in the file, which may be shorter.
    pub(super) fn open(path: &Path, pages: u32) -> io::Result<Marks> {
        let marks = Marks::new(OpenOptions::new().read(true).write(true).open(path)?, pages);
        let mut bytes = vec![0; marks.arrived.0.len() * 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match marks.file().read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        for (first, word) in (0..).step_by(BITS as usize).zip(bytes.as_chunks::<8>().0) {
            let word = u64::from_le_bytes(*word);
            (first..first + BITS).filter(|page| word & bit(*page) != 0).for_each(|page| marks.set(page));
        }
        Ok(marks)
    }

    fn new(file: File, pages: u32) -> Marks {
        let bits = || Bits((0..pages.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect());
        Marks { claimed: bits(), arrived: bits(), count: AtomicU64::new(0), file: Mutex::new(file) }
    }

    /// A page that is known to have arrived. It is not in the file until [`Marks::save_all`].
    pub(super) fn set(&self, page: u32) {
        self.claimed.set(page);
        if self.arrived.set(page) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn has_arrived(&self, page: u32) -> bool {
        self.arrived.get(page)
    }

    /// Whether it has arrived, or somebody is putting it.
    pub(super) fn is_claimed(&self, page: u32) -> bool {
        self.claimed.get(page)
    }

    /// How many have arrived.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes neighbouring pages, as many from `first` on as nobody else has, and none from `end` on.
    pub(super) fn claim(&self, first: u32, end: u32) -> Claim<'_> {
        let taken = (first..end).take_while(|page| self.claimed.set(*page)).count() as u32;
        Claim { marks: self, pages: first..first + taken }
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts everything that has arrived into the file.
    pub(super) fn save_all(&self) -> io::Result<()> {
        self.save(&(0..(self.arrived.0.len() as u32).saturating_mul(BITS)))
    }

    fn save(&self, pages: &std::ops::Range<u32>) -> io::Result<()> {
        let words = (pages.start / BITS) as usize..pages.end.div_ceil(BITS) as usize;
        // Under the lock, so that no older word is written over a newer one.
        let file = self.file();
        let bytes: Vec<u8> = self.arrived.0[words.clone()]
            .iter()
            .flat_map(|word| word.load(Ordering::SeqCst).to_le_bytes())
            .collect();
        file.write_all_at(&bytes, words.start as u64 * 8)
    }
}

/// Pages that only one may put. Dropped without [`Claim::keep`], they are anyone's again.
pub(super) struct Claim<'a> {
    marks: &'a Marks,
    pub(super) pages: std::ops::Range<u32>,
}

impl Claim<'_> {
    /// They have arrived. After an error they have, too, but the next keeper will not know.
    pub(super) fn keep(self) -> io::Result<()> {
        self.pages.clone().for_each(|page| self.marks.set(page));
        if self.pages.is_empty() { Ok(()) } else { self.marks.save(&self.pages) }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        for page in self.pages.clone().filter(|page| !self.marks.has_arrived(*page)) {
            self.marks.claimed.clear(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_claimed_once_and_another_keeper_finds_what_has_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrived");
        let marks = Marks::create(&path, 1000).unwrap();
        marks.claim(60, 70).keep().unwrap();
        let claim = marks.claim(50, 100);
        assert_eq!(claim.pages, 50..60, "up to what somebody else has");
        assert_eq!(marks.claim(55, 60).pages, 55..55);
        drop(claim);
        assert!(!marks.is_claimed(55) && !marks.has_arrived(55) && marks.has_arrived(65));
        marks.claim(998, 1000).keep().unwrap();
        assert_eq!(marks.count(), 12);
        let found = Marks::open(&path, 1000).unwrap();
        let arrived: Vec<u32> = (0..1000).filter(|page| found.has_arrived(*page)).collect();
        assert_eq!(arrived, (60..70).chain(998..1000).collect::<Vec<_>>());
        assert_eq!(found.count(), 12);
        assert_eq!(Marks::open(&path, 5000).unwrap().count(), 12, "a file that ends sooner");
        assert!(!found.has_arrived(4000), "beyond what there is");
    }
}
