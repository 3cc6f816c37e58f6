//! Bringing absent pages into the file: in the background, or those a client announces it will read.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use watari_types::PAGE_SIZE;

use crate::Disk;
use crate::bits::{self, WORD_PAGES};
use crate::engine::{Engine, page_bytes};

/// How many pages the source is asked about at a time: 64 MiB.
const WINDOW: u32 = 16_384;
/// While the guest uses the disk, hydration rests this many times as long as it works. It takes a tenth of the time then;
/// the kernel, which writes the pages back, takes some more, and the guest is to keep four fifths of its own requests.
const REST: u32 = 9;
/// Longest and shortest wait after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Background hydration of a disk; stops when dropped.
pub struct Hydration {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    ended: bool,
}

impl Disk {
    /// Brings absent pages in the background, with low priority. While the guest uses the disk, hydration
    /// takes about a tenth of the time. After an error of the source it waits and tries again.
    pub fn hydrate(&self) -> Hydration {
        let shared = Arc::new(Shared::default());
        let (engine, at_work) = (self.shared_engine(), shared.clone());
        let spawned = thread::Builder::new().name("disk-hydrate".into()).spawn(move || {
            // Niceness is a thread's own on Linux. Without it hydration is merely less polite.
            let _ = rustix::process::nice(10);
            run(&engine, &at_work);
            at_work.state.lock().ended = true;
            at_work.changed.notify_all();
        });
        if let Err(err) = &spawned {
            tracing::warn!("cannot start hydrating: {err}");
            shared.state.lock().ended = true;
        }
        Hydration { shared, worker: spawned.ok() }
    }
}

impl Hydration {
    /// Waits until no page is absent any more.
    pub fn wait(&self) {
        let mut state = self.shared.state.lock();
        while !state.ended {
            self.shared.changed.wait(&mut state);
        }
    }
}

impl Drop for Hydration {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the thread that hydrates the disk panicked");
        }
    }
}

impl Shared {
    /// Waits for `pause`; true if it is time to stop.
    fn stopped_within(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.stop {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.stop
    }
}

fn run(engine: &Engine, shared: &Shared) {
    let (mut backoff, mut seen) = (BACKOFF.0, engine.requests.load(Ordering::Relaxed));
    while engine.map.absent_pages() > 0 {
        let mut failed = None;
        for start in (0..engine.map.pages()).step_by(WINDOW as usize) {
            let window = start..start.saturating_add(WINDOW).min(engine.map.pages());
            let hydrated = engine.hydrate(window, |worked| {
                let requests = engine.requests.load(Ordering::Relaxed);
                let guest_is_active = std::mem::replace(&mut seen, requests) != requests;
                shared.stopped_within(if guest_is_active { worked * REST } else { Duration::ZERO })
            });
            match hydrated {
                Ok(true) => {}
                Ok(false) => return,
                Err(err) => failed = Some(err),
            }
        }
        if let Some(err) = failed {
            tracing::warn!("{} pages of the disk are still absent: {err}", engine.map.absent_pages());
            if shared.stopped_within(backoff) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }
    // It need not come again after a loss of power.
    if let Err(err) = engine.make_durable() {
        tracing::warn!("what was brought from the source is not on the medium yet: {err}");
    }
}

impl Engine {
    /// Brings the absent pages of `pages` into the file. After each word `rest` is told how long that took
    /// and says whether to stop; then the result is false.
    pub(crate) fn hydrate(
        &self,
        pages: Range<u32>,
        mut rest: impl FnMut(Duration) -> bool,
    ) -> io::Result<bool> {
        if !bits::any(self.map.absent(), pages.clone()) {
            return Ok(true);
        }
        let first_word = pages.start / WORD_PAGES;
        let data = bits::clear_bitmap(bits::words_for(pages.end - first_word * WORD_PAGES));
        for run in self.source()?.data_runs(pages.start, pages.end) {
            let run = run.start.max(pages.start)..run.end.min(pages.end);
            bits::set_range(&data, run.start - first_word * WORD_PAGES..run.end - first_word * WORD_PAGES);
        }
        for part in bits::parts(pages) {
            let (word, mask) = bits::place(&part);
            if self.map.absent()[word].load(Ordering::Acquire) & mask != 0 {
                let begun = Instant::now();
                self.hydrate_word(word, mask, data[word - first_word as usize].load(Ordering::Acquire))?;
                if rest(begun.elapsed()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Brings the absent pages of `mask` in one word; those not in `data` are zero. The source is read without
    /// a lock, so a guest never waits for it here; what the guest wrote meanwhile is present and stays.
    fn hydrate_word(&self, word: usize, mask: u64, data: u64) -> io::Result<()> {
        let base = page_bytes(0..word as u32 * WORD_PAGES).end;
        let absent = self.map.absent()[word].load(Ordering::Acquire) & mask;
        let mut content = vec![0; WORD_PAGES as usize * PAGE_SIZE];
        for run in bits::runs_in_word(word, absent & data) {
            let bytes = page_bytes(run.clone());
            let into = &mut content[(bytes.start - base) as usize..(bytes.end - base) as usize];
            self.source()?.read(run.start, into)?;
        }
        let _stripe = self.stripes.lock(word as u32 * WORD_PAGES);
        let absent = self.map.absent()[word].load(Ordering::Acquire) & absent;
        for run in bits::runs_in_word(word, absent & data) {
            let bytes = page_bytes(run);
            self.raw
                .write(bytes.start, &content[(bytes.start - base) as usize..(bytes.end - base) as usize])?;
        }
        for run in bits::runs_in_word(word, absent & !data) {
            self.clear_leftovers(page_bytes(run))?;
        }
        self.arrived(word, absent);
        Ok(())
    }

    /// Makes absent pages that are to be zero read as zeros: a write that was killed may have left bytes there, and so
    /// does what the disk held before it was taken back.
    fn clear_leftovers(&self, bytes: Range<u64>) -> io::Result<()> {
        for left in self.raw.data(bytes) {
            let left = left?;
            self.make_hole(left)?;
        }
        Ok(())
    }
}
