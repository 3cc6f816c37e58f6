//! The changes that have begun and not ended.

use std::ops::Range;

use parking_lot::Mutex;

use crate::bits;

/// The pages of the changes at work: publishing must not take their marks. Such a change may have reached the file and
/// not left its last mark yet; if the process is killed then, the first mark is all that is known of it.
#[derive(Default)]
pub(crate) struct AtWork(Mutex<Vec<Range<u32>>>);

/// A change is at work.
pub(crate) struct Changing<'a> {
    at_work: &'a AtWork,
    pages: Range<u32>,
}

impl AtWork {
    /// To be held from before a change's first mark until after its last.
    pub(crate) fn enter(&self, pages: Range<u32>) -> Changing<'_> {
        self.0.lock().push(pages.clone());
        Changing { at_work: self, pages }
    }

    /// All pages at work. With the gate held alone, whatever begins later leaves its first mark later.
    pub(crate) fn now(&self) -> Vec<Range<u32>> {
        self.0.lock().clone()
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut at_work = self.at_work.0.lock();
        if let Some(mine) = at_work.iter().position(|pages| *pages == self.pages) {
            at_work.swap_remove(mine);
        }
    }
}

/// The bits of a word whose pages lie in one of `ranges`.
pub(crate) fn bits_of_word(ranges: &[Range<u32>], word: usize) -> u64 {
    let first = word as u32 * bits::WORD_PAGES;
    ranges.iter().fold(0, |all, range| {
        let part = range.start.max(first)..range.end.min(first.saturating_add(bits::WORD_PAGES));
        if part.is_empty() { all } else { all | bits::place(&part).1 }
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use watari_types::{Generation, PAGE_SIZE};

    use super::*;
    use crate::engine::Engine;
    use crate::ledger::{Layout, Ledger};
    use crate::map::Map;
    use crate::medium::Medium;
    use crate::raw::RawFile;
    use crate::{Disk, Zeroes};

    /// A file whose writes say that they happened, and return when they may.
    struct Slow {
        file: RawFile,
        written: Sender<()>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Medium for Slow {
        fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, into)
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.file.write(offset, data)?;
            self.written.send(()).unwrap();
            self.go_on.lock().recv().unwrap();
            Ok(())
        }

        fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
            self.file.punch(bytes)
        }

        fn zero_range(&self, bytes: Range<u64>) -> io::Result<()> {
            self.file.zero_range(bytes)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn next_data(&self, bytes: Range<u64>) -> io::Result<Option<Range<u64>>> {
            self.file.next_data(bytes)
        }
    }

    #[test]
    fn what_is_published_while_a_write_is_at_work_does_not_forget_the_write() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes) = (folder.path().join("0.raw"), 64 * PAGE_SIZE as u64);
        let (written, has_written) = channel();
        let (go, go_on) = channel();
        let slow = Slow { file: RawFile::create(&path, bytes).unwrap(), written, go_on: Mutex::new(go_on) };
        let map = Map::create(&path, bytes, false, |_| Ok(())).unwrap();
        let ledger = Ledger::create(&path, Layout::new(bytes, false), false).unwrap();
        let disk = Disk::over(Engine::new(Box::new(slow), map, ledger, None));
        std::thread::scope(|scope| {
            scope.spawn(|| disk.write_at(5 * PAGE_SIZE as u64, &[7; PAGE_SIZE]).unwrap());
            has_written.recv().unwrap();
            disk.write_zeroes(9 * PAGE_SIZE as u64, PAGE_SIZE as u64, Zeroes::Allocated).unwrap();
            let sealed = disk.seal();
            assert_eq!(sealed.pages().iter().collect::<Vec<_>>(), [5, 9]);
            disk.published(sealed, Generation(1));
            // If the process is killed here, this is what the map says.
            assert_eq!(disk.pending().iter().collect::<Vec<_>>(), [5]);
            assert_eq!(disk.changed_since(Generation(0)).unwrap().iter().collect::<Vec<_>>(), [5, 9]);
            assert_eq!(disk.changed_since(Generation(1)).unwrap().iter().collect::<Vec<_>>(), [5]);
            go.send(()).unwrap();
        });
        assert_eq!(disk.scan().iter().collect::<Vec<_>>(), [5]);
        disk.published(disk.seal(), Generation(2));
        assert!(disk.pending().is_empty());
    }
}
