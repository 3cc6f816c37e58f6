//! What a machine lacks that runs already: its content lies on the node that it came from, until a snapshot of it is here.
//!
//! ```text
//!   a page is needed ──► in the snapshot that this node had, and unchanged since? ── yes ─► the store
//!                                                                             └──── no ──► wanted from the keeper there
//!   the snapshot of the instant at which it left is here: from now on everything comes from the store
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use watari_disk::Source;
use watari_store::Store;
use watari_types::{PAGE_SIZE, PageSet, PageTable, RegionName};

use super::cut;
use super::frame::{Frame, MOST_PAGES, Wire};
use crate::Result;
use crate::arrival::{Sink, Supply};

/// How long a request of the guest's to its disk waits for a connection that is cut. After that it fails, and the guest is held.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a wanted page may take: longer, and the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(20);
/// How often the other side is tried.
const AGAIN: Duration = Duration::from_millis(300);

/// What is lent to a machine, all regions together.
pub(crate) struct Lent {
    store: Store,
    /// Where somebody listens who passes on what is said to the keeper there.
    lender: PathBuf,
    /// Connections that nobody uses just now.
    idle: Mutex<Vec<Wire>>,
    /// And those that somebody does, with the other end of each.
    busy: Mutex<Busy>,
    /// What the regions hold, once all of it is in the store.
    here: OnceLock<BTreeMap<RegionName, PageTable>>,
}

#[derive(Default)]
struct Busy {
    /// Nobody gets anything any more.
    is_closed: bool,
    asked: u64,
    streams: BTreeMap<u64, UnixStream>,
}

impl Lent {
    pub(crate) fn new(store: Store, lender: PathBuf) -> Lent {
        Lent { store, lender, idle: Mutex::default(), busy: Mutex::default(), here: OnceLock::new() }
    }

    /// From now on everything comes from the store: a snapshot that holds what is lent is there.
    pub(crate) fn is_here(&self, tables: BTreeMap<RegionName, PageTable>) {
        let _ = self.here.set(tables);
        self.idle.lock().clear();
    }

    /// Nothing is wanted any more: whoever waits does so no longer.
    pub(crate) fn close(&self) {
        let mut busy = self.busy.lock();
        busy.is_closed = true;
        for stream in busy.streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_closed(&self) -> bool {
        self.busy.lock().is_closed
    }

    /// The content of at most [`MOST_PAGES`] pages, which is tried for so long.
    fn fetch(&self, region: &RegionName, pages: &[u32], patience: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            let idle = self.idle.lock().pop();
            let was_idle = idle.is_some();
            let asked = idle.map_or_else(|| self.connect(), Ok).and_then(|mut wire| {
                let content = self.ask(&mut wire, region, pages)?;
                self.idle.lock().push(wire);
                Ok(content)
            });
            match asked {
                Ok(content) => return Ok(content),
                // It may have been cut long ago.
                Err(_) if was_idle => {}
                Err(error) if self.is_closed() || self.here.get().is_some() => return Err(error),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(AGAIN),
            }
        }
    }

    fn ask(&self, wire: &mut Wire, region: &RegionName, pages: &[u32]) -> io::Result<Vec<u8>> {
        let stream = wire.stream().try_clone()?;
        let number = {
            let mut busy = self.busy.lock();
            if busy.is_closed {
                return Err(io::ErrorKind::NotConnected.into());
            }
            busy.asked += 1;
            let number = busy.asked;
            busy.streams.insert(number, stream);
            number
        };
        let answer = ask(wire, region, pages);
        self.busy.lock().streams.remove(&number);
        answer
    }

    fn connect(&self) -> io::Result<Wire> {
        let stream = UnixStream::connect(&self.lender)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Wire::over(stream)
    }
}

fn ask(wire: &mut Wire, region: &RegionName, pages: &[u32]) -> io::Result<Vec<u8>> {
    wire.send_want(region, pages)?;
    match wire.receive()? {
        Frame::Pages { region: which, pages: got, content } if which == *region && got == pages => {
            Ok(content)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the other side is out of step")),
    }
}

/// One region of what is lent.
pub(crate) struct LentRegion {
    lent: Arc<Lent>,
    region: RegionName,
    /// What it held at the snapshot that this node had.
    base: PageTable,
    /// The pages that may have changed since.
    owed: PageSet,
    /// How many pages may be other than zero, by these two.
    count: u64,
}

impl LentRegion {
    /// A region that held `base`, and in which the pages of `owed` may have changed since.
    pub(crate) fn new(lent: &Arc<Lent>, region: RegionName, base: PageTable, owed: PageSet) -> LentRegion {
        let mut all = base.pages();
        all.union_with(&owed);
        LentRegion { lent: Arc::clone(lent), region, base, count: all.len(), owed }
    }

    /// What the region holds, once that is known here.
    fn here(&self) -> Option<&PageTable> {
        self.lent.here.get().and_then(|tables| tables.get(&self.region))
    }

    /// Whether nothing is lent any more: a region without a table is zero.
    fn is_here(&self) -> bool {
        self.lent.here.get().is_some()
    }

    fn fetch(&self, pages: &[u32], patience: Duration) -> io::Result<Vec<u8>> {
        self.lent.fetch(&self.region, pages, patience)
    }

    fn read_from_store(&self, table: &PageTable, pages: &[u32], threads: usize, sink: Sink) -> Result<()> {
        let pages = pages.iter().map(|page| (*page, table.get(*page)));
        Ok(self.lent.store.read_pages(pages, threads, sink)?)
    }
}

impl Supply for LentRegion {
    fn has(&self, page: u32) -> bool {
        match (self.is_here(), self.here()) {
            (true, table) => table.is_some_and(|table| !table.get(page).is_zero_page()),
            (false, _) => self.owed.contains(page) || !self.base.get(page).is_zero_page(),
        }
    }

    fn pages(&self) -> PageSet {
        if self.is_here() {
            return self.here().map(PageTable::pages).unwrap_or_default();
        }
        let mut pages = self.base.pages();
        pages.union_with(&self.owed);
        pages
    }

    fn len(&self) -> u64 {
        if self.is_here() { self.here().map_or(0, PageTable::len) } else { self.count }
    }

    fn end(&self) -> u32 {
        let mut pages = self.base.pages();
        pages.union_with(&self.owed);
        pages.runs().last().map_or(0, |run| run.end)
    }

    fn is_near(&self) -> bool {
        self.is_here()
    }

    fn read(&self, pages: &[u32], threads: usize, sink: Sink) -> Result<()> {
        if self.is_here() {
            return self.here().map_or(Ok(()), |table| self.read_from_store(table, pages, threads, sink));
        }
        let (owed, kept): (Vec<u32>, Vec<u32>) = pages.iter().partition(|page| self.owed.contains(**page));
        self.read_from_store(&self.base, &kept, threads, sink)?;
        for wanted in owed.chunks(MOST_PAGES) {
            // Whoever waits for memory is told why, and it is tried again there.
            let content = self.fetch(wanted, Duration::ZERO).map_err(cut)?;
            let mut rest = &content[..];
            for run in wanted.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
                let (bytes, others) = rest.split_at(run.len() * PAGE_SIZE);
                sink(run[0], bytes).map_err(cut)?;
                rest = others;
            }
        }
        Ok(())
    }
}

impl Source for LentRegion {
    fn read(&self, first: u32, into: &mut [u8]) -> io::Result<()> {
        let mut wanted = Vec::new();
        for (page, bytes) in (first..).zip(into.as_chunks_mut::<PAGE_SIZE>().0) {
            let table = match (self.is_here(), self.here()) {
                (true, table) => table,
                (false, _) if self.owed.contains(page) => {
                    wanted.push(page);
                    continue;
                }
                (false, _) => Some(&self.base),
            };
            match table {
                Some(table) => {
                    self.lent.store.read_page(&table.get(page), bytes).map_err(io::Error::other)?;
                }
                None => bytes.fill(0),
            }
        }
        for wanted in wanted.chunks(MOST_PAGES) {
            let content = match self.fetch(wanted, PATIENCE) {
                Ok(content) => content,
                // It came while this was being tried.
                Err(_) if self.is_here() => return Source::read(self, first, into),
                Err(error) => return Err(error),
            };
            for (page, content) in wanted.iter().zip(content.chunks_exact(PAGE_SIZE)) {
                let at = (page - first) as usize * PAGE_SIZE;
                into[at..at + PAGE_SIZE].copy_from_slice(content);
            }
        }
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>> {
        if self.is_here() {
            return self.here().map(|table| table.runs(first..end)).unwrap_or_default();
        }
        let mut pages: PageSet = self.owed.within(first..end).collect();
        self.base.runs(first..end).into_iter().for_each(|run| pages.insert_range(run));
        pages.runs().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use tempfile::TempDir;
    use watari_types::{Page, PageHash};

    use super::*;

    const PAGES: u32 = 600;

    /// The other side: it gives what it holds, and hangs up after every third page.
    struct Other {
        folder: TempDir,
        wanted: Arc<AtomicUsize>,
    }

    fn page(number: u32) -> Page {
        let mut page = [0; PAGE_SIZE];
        page[..4].copy_from_slice(&number.to_le_bytes());
        page
    }

    fn other(holds: Vec<u32>) -> Other {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("lender")).unwrap();
        let wanted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wanted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut wire = Wire::over(stream.unwrap()).unwrap();
                for _ in 0..3 {
                    let Ok(Frame::Want { region, pages }) = wire.receive() else { break };
                    count.fetch_add(pages.len(), Ordering::SeqCst);
                    let content: Vec<u8> = pages.iter().flat_map(|at| page(holds[*at as usize])).collect();
                    wire.send_pages(&region, &pages, &content).unwrap();
                }
            }
        });
        Other { folder, wanted }
    }

    /// A table of these contents, which are in the store.
    fn table(store: &Store, contents: &[u32]) -> PageTable {
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        let mut changes = Vec::new();
        for (at, number) in (0..).zip(contents).filter(|(_, number)| **number > 0) {
            let content = page(*number);
            let hash = PageHash::of(&content);
            pack.put(hash, &content).unwrap();
            changes.push((at, hash));
        }
        pack.finish().unwrap();
        let mut table = PageTable::new();
        table.apply(&changes.into_iter().collect());
        table
    }

    fn read(region: &LentRegion, pages: Range<u32>) -> Vec<u32> {
        let mut bytes = vec![1; pages.len() * PAGE_SIZE];
        Source::read(region, pages.start, &mut bytes).unwrap();
        bytes
            .as_chunks::<PAGE_SIZE>()
            .0
            .iter()
            .map(|page| u32::from_le_bytes(page[..4].try_into().unwrap()))
            .collect()
    }

    fn supplied(region: &LentRegion) -> Vec<u32> {
        let got = Mutex::new(vec![0; PAGES as usize]);
        let pages: Vec<u32> = Supply::pages(region).iter().collect();
        let put = |first: u32, bytes: &[u8]| {
            for (at, page) in (first as usize..).zip(bytes.as_chunks::<PAGE_SIZE>().0) {
                got.lock()[at] = u32::from_le_bytes(page[..4].try_into().unwrap());
            }
            Ok(())
        };
        // A connection that was hung up is tried again by whoever waits.
        while Supply::read(region, &pages, 2, &put).is_err() {}
        got.into_inner()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_page_comes_from_where_it_is_unchanged_and_is_wanted_only_if_it_is_nowhere_else(
            base in prop::collection::vec(0u32..5, PAGES as usize),
            changes in prop::collection::btree_map(0..PAGES, 0u32..9, 0..200),
            start in 0..PAGES,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let mut now = base.clone();
            changes.iter().for_each(|(at, number)| now[*at as usize] = *number);
            let there = other(now.clone());
            let lent = Arc::new(Lent::new(store.clone(), there.folder.path().join("lender")));
            let owed: PageSet = changes.keys().copied().collect();
            let region = LentRegion::new(&lent, RegionName::disk(0), table(&store, &base), owed.clone());
            prop_assert_eq!(read(&region, start..PAGES), &now[start as usize..]);
            prop_assert!(there.wanted.load(Ordering::SeqCst) as u64 <= owed.len());
            prop_assert_eq!(supplied(&region), now.clone());
            let runs: PageSet = region.data_runs(start, PAGES).into_iter().flatten().collect();
            prop_assert!((start..PAGES).all(|page| runs.contains(page) == region.has(page)));
            prop_assert!((0..PAGES).all(|page| region.has(page) || now[page as usize] == 0));
            prop_assert!(!region.is_near() && region.end() <= PAGES && Supply::pages(&region).len() == region.len());

            let wanted = there.wanted.load(Ordering::SeqCst);
            lent.is_here(BTreeMap::from([(RegionName::disk(0), table(&store, &now))]));
            prop_assert_eq!(read(&region, 0..PAGES), now.clone());
            prop_assert_eq!(supplied(&region), now.clone());
            prop_assert!(region.is_near() && (0..PAGES).all(|page| region.has(page) == (now[page as usize] != 0)));
            prop_assert_eq!(there.wanted.load(Ordering::SeqCst), wanted, "nothing is wanted any more");
        }
    }

    #[test]
    fn nobody_waits_for_what_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let path = folder.path().join("lender");
        let silent = UnixListener::bind(&path).unwrap();
        let lent = Arc::new(Lent::new(store, path));
        let owed: PageSet = [3].into_iter().collect();
        let region = LentRegion::new(&lent, RegionName::disk(0), PageTable::new(), owed);
        thread::scope(|scope| {
            let reading = scope.spawn(|| Source::read(&region, 3, &mut [0; PAGE_SIZE]));
            let (mut asked, _) = silent.accept().unwrap();
            std::io::Read::read_exact(&mut asked, &mut [0; 5]).unwrap();
            lent.close();
            assert!(reading.join().unwrap().is_err());
        });
        assert!(Source::read(&region, 3, &mut [0; PAGE_SIZE]).is_err());
    }
}
