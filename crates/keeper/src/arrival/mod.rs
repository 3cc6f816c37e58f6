//! Memory that arrives while its guest runs already.
//!
//! ```text
//!   guest touches a page ──► it waits ──► the pages around it ──┐
//!                                                               ├─► claimed once ─► put ─► noted
//!   beside it, frame by frame: all that is left ────────────────┘
//! ```
//!
//! So a resume waits for no page to be decompressed. That all of them can be read has been checked before. If a page cannot be read all the same, who needs it waits, it is tried again, and the
//! machine's status says so: what mends the store (`watari verify --repair`) lets the guest go on.
//!
//! Each page's content is put once at most. A page that has arrived and has none now was given away by the guest (a balloon,
//! free page reporting), and is zero when it is touched again. So it is noted in a file which pages have arrived, for the next
//! keeper if this one dies: after they were put, so what that one finds neither noted nor in memory is still to come. (A page
//! that is put, given away and not yet noted when the keeper is killed, all of it within microseconds, comes back with its old
//! content, which a guest must expect of a page that it gave away.)

mod marks;
mod supply;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use marks::Marks;
pub(crate) use supply::{InStore, Sink, Supply};
use watari_ram::Faults;
use watari_types::{ErrorReport, PAGE_SIZE, PageSet};

use crate::{Error, Result};

/// Pages that are put when one of them is waited for: neighbours lie together in the store, and are touched together.
const AROUND: u32 = 64;
/// How long to wait for faults before looking whether there is anything else to do.
const LOOK: Duration = Duration::from_millis(50);
/// How long after a failure reading is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Memory on its way. Nothing arrives any more once it is dropped.
pub(crate) struct Arrival {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

/// How far it is, for everyone who wants to know.
#[derive(Clone)]
pub(crate) struct Arriving(Arc<Work>);

struct Work {
    faults: Faults,
    supply: Arc<dyn Supply>,
    marks: Marks,
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_complete: bool,
    /// Why something could not be read, until all of it has been.
    failure: Option<String>,
}

impl Arrival {
    /// Begins to put what is supplied into memory that `faults` watches, but for the pages that are `there`. `file` is to note
    /// what has arrived.
    ///
    /// # Errors
    /// Nothing arrives then.
    pub(crate) fn begin(
        faults: Faults,
        supply: Arc<dyn Supply>,
        file: &Path,
        there: &PageSet,
    ) -> Result<Arrival> {
        let marks = Marks::create(file, supply.end()).map_err(Error::io("create", file))?;
        Arrival::start(faults, supply, marks, there, file)
    }

    /// Goes on with what another keeper has begun.
    ///
    /// # Errors
    /// Nothing arrives then.
    pub(crate) fn go_on(
        faults: Faults,
        supply: Arc<dyn Supply>,
        file: &Path,
        there: &PageSet,
    ) -> Result<Arrival> {
        let marks = Marks::open(file, supply.end()).map_err(Error::io("read", file))?;
        Arrival::start(faults, supply, marks, there, file)
    }

    fn start(
        faults: Faults,
        supply: Arc<dyn Supply>,
        marks: Marks,
        there: &PageSet,
        file: &Path,
    ) -> Result<Arrival> {
        there.iter().filter(|page| supply.has(*page)).for_each(|page| marks.set(page));
        // Also those: the guest may give them away.
        marks.save_all().map_err(Error::io("write", file))?;
        let work = Work {
            faults,
            supply,
            marks,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut arrival = Arrival { work: Arc::new(work), threads: Vec::new() };
        arrival.spawn("faults", Work::serve)?;
        arrival.spawn("arrival", Work::fill)?;
        Ok(arrival)
    }

    fn spawn(&mut self, name: &str, what: impl FnOnce(&Work) + Send + 'static) -> Result<()> {
        let work = Arc::clone(&self.work);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || what(&work));
        self.threads.push(thread.map_err(Error::io("start the thread", Path::new(name)))?);
        Ok(())
    }

    /// What is supplied has changed: see [`Supply::is_near`].
    pub(crate) fn look_again(&self) {
        drop(self.work.lock());
        self.work.changed.notify_all();
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Arriving {
        Arriving(Arc::clone(&self.work))
    }

    /// Nobody is to wait for any of these pages any more: see [`Faults::release`].
    pub(crate) fn release(&self, pages: Range<u32>) -> Result<()> {
        Ok(self.work.faults.release(pages)?)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.work.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Arriving {
    /// How many pages have not arrived.
    pub(crate) fn absent(&self) -> u64 {
        self.0.supply.len().saturating_sub(self.0.marks.count())
    }

    /// Whether a page has not arrived. One that is just being put has once that is over: whoever waited for it may have
    /// written to it before it was noted.
    pub(crate) fn is_absent(&self, page: u32) -> bool {
        if !self.0.supply.has(page) {
            return false;
        }
        while self.0.marks.is_claimed(page) {
            if self.0.marks.has_arrived(page) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// What keeps them from it.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }

    /// Waits until everything is there; `false` if that will not be.
    pub(crate) fn wait(&self) -> bool {
        let is_open = |state: &mut State| !state.is_complete && !self.0.is_over();
        let waited = self.0.changed.wait_while(self.0.lock(), is_open);
        waited.unwrap_or_else(PoisonError::into_inner).is_complete
    }
}

impl Work {
    /// Puts what is waited for.
    fn serve(&self) {
        let mut unserved: Vec<u32> = Vec::new();
        while !self.is_over() {
            match self.faults.waiting(if unserved.is_empty() { LOOK } else { AGAIN }) {
                Ok(pages) => {
                    let pages = if pages.is_empty() { std::mem::take(&mut unserved) } else { pages };
                    unserved.extend(pages.into_iter().filter(|page| self.tried(self.bring(*page)).is_none()));
                }
                Err(error) => drop(self.tried::<()>(Err(error.into()))),
            }
        }
    }

    /// Puts all that is left, as it lies in the store.
    fn fill(&self) {
        // The guest has the other half of the processors.
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() / 2).clamp(1, 8);
        while !self.is_over() {
            drop(self.changed.wait_while(self.lock(), |_| !self.supply.is_near() && !self.is_over()));
            let left = self.supply.pages();
            let left: Vec<u32> = left.iter().filter(|page| !self.marks.has_arrived(*page)).collect();
            if !self.is_over() && self.tried(self.read(&left, threads)).is_some() {
                *self.lock() = State { is_complete: true, failure: None };
                return self.changed.notify_all();
            }
            drop(self.changed.wait_timeout_while(self.lock(), AGAIN, |_| !self.is_over()));
        }
    }

    fn bring(&self, page: u32) -> Result<()> {
        if !self.supply.has(page) || self.marks.has_arrived(page) {
            // It never was anything else, or was given away; or it is there by now, and stays as it is.
            self.faults.put(page, &[0; PAGE_SIZE])?;
            return Ok(self.faults.wake(page..page + 1)?);
        }
        let first = page / AROUND * AROUND;
        let around = first..=first | (AROUND - 1);
        let around: Vec<u32> =
            around.filter(|page| self.supply.has(*page) && !self.marks.has_arrived(*page)).collect();
        self.read(&around, 1)?;
        // Somebody else may just be putting it. Should that fail, it is nobody's again.
        while !self.marks.has_arrived(page) && !self.is_over() {
            std::thread::yield_now();
            if !self.marks.is_claimed(page) {
                self.read(&[page], 1)?;
            }
        }
        Ok(())
    }

    fn read(&self, pages: &[u32], threads: usize) -> Result<()> {
        self.supply.read(pages, threads, &|first, bytes| self.put(first, bytes))
    }

    /// Puts those of neighbouring pages that nobody else puts.
    fn put(&self, first: u32, bytes: &[u8]) -> io::Result<()> {
        let end = first + (bytes.len() / PAGE_SIZE) as u32;
        let mut at = first;
        while at < end {
            if self.is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let claim = self.marks.claim(at, end);
            let mut done = claim.pages.start;
            while done < claim.pages.end {
                let content =
                    (done - first) as usize * PAGE_SIZE..(claim.pages.end - first) as usize * PAGE_SIZE;
                let put = self.faults.put(done, &bytes[content]);
                // One that is there although nobody has put it is the guest's own.
                done += put.inspect_err(|error| self.note_end(error)).map_err(io::Error::other)?.max(1);
            }
            // The one after it is somebody else's.
            at = claim.pages.end + 1;
            claim.keep()?;
        }
        Ok(())
    }

    /// What was tried, if it worked. What did not is on record, unless there is nobody left whom it could matter to.
    fn tried<T>(&self, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        if let Error::Ram(error) = &error {
            self.note_end(error);
        }
        if !self.is_over() {
            let failure = ErrorReport::chain(&error);
            let before = self.lock().failure.replace(failure.clone());
            if before.as_ref() != Some(&failure) {
                tracing::error!(failure, "memory does not arrive");
            }
        }
        None
    }

    fn note_end(&self, error: &watari_ram::Error) {
        if matches!(error, watari_ram::Error::Gone { .. }) {
            self.stop();
        }
    }

    fn stop(&self) {
        let state = self.lock();
        self.stop.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
