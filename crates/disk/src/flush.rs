//! Flushes, and how to put them off while the guest cannot notice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use crate::Disk;
use crate::engine::Engine;

/// Which flushes were asked for while they are put off, and whether they may be acknowledged before they happen.
#[derive(Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    holders: usize,
    /// When the first of them began.
    since: Option<SystemTime>,
    /// The guest stands still: nobody can act on an early answer.
    guest_held: bool,
    /// Counts flushes handed to the worker.
    asked: u64,
    /// All up to this one have happened.
    done: u64,
    failed: Option<io::Error>,
}

impl Engine {
    /// Everything acknowledged before is on the medium when this returns; or, while flushes are put off and the
    /// guest is held, soon.
    pub(crate) fn flush(&self) -> io::Result<()> {
        {
            let mut state = self.flusher.state.lock();
            if state.holders > 0 {
                state.asked += 1;
                let mine = state.asked;
                self.flusher.changed.notify_all();
                while state.done < mine && !state.guest_held && state.holders > 0 {
                    self.flusher.changed.wait(&mut state);
                }
                if state.done < mine && state.guest_held {
                    return Ok(());
                }
            }
            if let Some(err) = state.failed.take() {
                return Err(err);
            }
        }
        self.make_durable()
    }

    /// Does what was put off, if anything was.
    fn catch_up(&self) {
        let asked = {
            let state = self.flusher.state.lock();
            if state.asked == state.done {
                return;
            }
            state.asked
        };
        let result = self.make_durable();
        let mut state = self.flusher.state.lock();
        state.done = state.done.max(asked);
        state.failed = state.failed.take().or(result.err());
        self.flusher.changed.notify_all();
    }
}

/// While it is held, flushes (and writes with FUA) happen on another thread, and from the moment that
/// [`Disk::guest_is_held`] says that the guest stands still they are acknowledged before they have happened.
///
/// QEMU flushes its disks when it stops a guest and when it saves its devices, and a pause must not wait for the
/// medium. Take it right before QEMU's `stop`, and [`redeem`](DeferredFlushes::redeem) it before `cont`: whoever
/// flushed gets the early answer only when the guest runs again, and by then it is true.
pub struct DeferredFlushes {
    disk: Disk,
    worker: Option<JoinHandle<()>>,
    /// Set with the flusher's state locked.
    ended: Arc<AtomicBool>,
}

impl Disk {
    /// Puts flushes off until the returned value is redeemed or dropped.
    pub fn defer_flushes(&self) -> DeferredFlushes {
        {
            let mut state = self.engine().flusher.state.lock();
            if state.holders == 0 {
                state.since = Some(SystemTime::now());
            }
            state.holders += 1;
        }
        let ended = Arc::new(AtomicBool::new(false));
        let (engine, end) = (self.shared_engine(), ended.clone());
        // Without a thread the flushes happen when they are redeemed.
        let worker = thread::Builder::new().name("disk-flush".into()).spawn(move || work(&engine, &end)).ok();
        DeferredFlushes { disk: self.clone(), worker, ended }
    }
}

fn work(engine: &Engine, ended: &AtomicBool) {
    loop {
        {
            let mut state = engine.flusher.state.lock();
            while !ended.load(Ordering::Acquire) && state.asked == state.done {
                engine.flusher.changed.wait(&mut state);
            }
            if ended.load(Ordering::Acquire) {
                return;
            }
        }
        engine.catch_up();
    }
}

impl Disk {
    /// The guest stands still since `at`, and until the flushes that are put off are redeemed. News of a moment
    /// before they were put off is old, and ignored.
    pub fn guest_is_held(&self, at: SystemTime) {
        let flusher = &self.engine().flusher;
        let mut state = flusher.state.lock();
        state.guest_held |= state.holders > 0 && state.since.is_some_and(|since| since <= at);
        flusher.changed.notify_all();
    }
}

impl DeferredFlushes {
    /// Stops putting flushes off and waits until those that were have happened.
    ///
    /// # Errors
    /// One of them failed: what was written before it may not be durable.
    pub fn redeem(mut self) -> io::Result<()> {
        self.end();
        self.disk.engine().flusher.state.lock().failed.take().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        let engine = self.disk.engine();
        {
            let mut state = engine.flusher.state.lock();
            if self.ended.swap(true, Ordering::AcqRel) {
                return;
            }
            state.holders -= 1;
            state.guest_held &= state.holders > 0;
        }
        engine.flusher.changed.notify_all();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the thread that flushes the disk panicked");
        }
        engine.catch_up();
    }
}

/// As [`redeem`](DeferredFlushes::redeem), but a failure is reported by the next flush.
impl Drop for DeferredFlushes {
    fn drop(&mut self) {
        self.end();
    }
}
