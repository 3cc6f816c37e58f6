//! What the machine is doing, for everyone who wants to know, also while it is being captured.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use watari_disk::Disk;
use watari_types::Generation;

use crate::arrival::Arriving;
use crate::protocol::Status;
use crate::record::Phase;

/// How often watchers hear how far hydration is.
const PROGRESS: Duration = Duration::from_millis(500);

/// The machine's status, and a bell that rings when it changes. Clones show the same board.
#[derive(Clone)]
pub(crate) struct Board(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    status: Status,
    disks: Vec<Disk>,
    memory: Option<Arriving>,
    /// What a watcher was told last of what rings no bell.
    told: Silent,
    version: u64,
    /// Conversations on the keeper's socket that are not over yet.
    talking: usize,
    /// The machine ended, and its end is on record.
    over: bool,
}

/// What changes without ringing the bell: how many pages are absent, and why some of them stay so.
#[derive(Default, PartialEq, Eq)]
struct Silent {
    absent: u64,
    failure: Option<String>,
}

impl State {
    fn absent_disk(&self) -> u64 {
        self.disks.iter().map(Disk::absent).sum()
    }

    fn absent_memory(&self) -> u64 {
        self.memory.as_ref().map_or(0, Arriving::absent)
    }

    fn failure(&self) -> Option<String> {
        self.memory.as_ref().and_then(Arriving::failure)
    }

    fn silent(&self) -> Silent {
        Silent { absent: self.absent_disk() + self.absent_memory(), failure: self.failure() }
    }

    fn status(&self) -> Status {
        let mut status = self.status.clone();
        (status.absent_disk_pages, status.absent_ram_pages) = (self.absent_disk(), self.absent_memory());
        if let Some(failure) = self.failure() {
            status.reason = format!("a part of its memory cannot be read: {failure}");
        }
        status
    }
}

impl Board {
    pub(crate) fn new(status: Status, disks: Vec<Disk>, memory: Option<Arriving>) -> Board {
        let state =
            State { status, disks, memory, told: Silent::default(), version: 0, talking: 0, over: false };
        Board(Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// The status now.
    pub(crate) fn status(&self) -> Status {
        self.lock().status()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().status.phase
    }

    pub(crate) fn phase_and_reason(&self) -> (Phase, String) {
        let state = self.lock();
        (state.status.phase, state.status.reason.clone())
    }

    pub(crate) fn set(&self, phase: Phase, reason: &str) {
        self.change(|state| {
            state.status.phase = phase;
            state.status.reason = reason.to_owned();
        });
    }

    /// All of memory is there.
    pub(crate) fn memory_has_arrived(&self) {
        self.change(|state| state.memory = None);
    }

    pub(crate) fn set_generation(&self, generation: Generation) {
        self.change(|state| state.status.generation = Some(generation));
    }

    /// The guest stands still since then: see [`Disk::guest_is_held`].
    pub(crate) fn guest_is_held(&self, at: SystemTime) {
        self.lock().disks.iter().for_each(|disk| disk.guest_is_held(at));
    }

    /// The machine ended: watchers get a last status.
    pub(crate) fn end(&self, phase: Phase, reason: &str) {
        self.change(|state| {
            state.status.phase = phase;
            state.status.reason = reason.to_owned();
            state.over = true;
        });
    }

    /// Waits until the status is newer than `seen`. Returns it, its version, and whether it is the last one.
    pub(crate) fn wait(&self, seen: Option<u64>) -> (Status, u64, bool) {
        let mut state = self.lock();
        while Some(state.version) == seen && !state.over {
            state = match state.told.absent {
                0 => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                // Hydration rings no bell: its progress is looked at.
                _ => self.0.changed.wait_timeout(state, PROGRESS).unwrap_or_else(PoisonError::into_inner).0,
            };
            if state.silent() != state.told {
                state.version += 1;
            }
        }
        state.told = state.silent();
        (state.status(), state.version, state.over)
    }

    /// Waits until the machine has ended, or the time is over. Returns whether it has ended.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, |s| !s.over);
        waited.unwrap_or_else(PoisonError::into_inner).0.over
    }

    /// A conversation on the keeper's socket; it is over when the guard is dropped.
    pub(crate) fn conversation(&self) -> Conversation {
        self.lock().talking += 1;
        Conversation(self.clone())
    }

    /// Waits until everyone who asks something has been answered, or the time is over.
    pub(crate) fn wait_for_farewells(&self, limit: Duration) {
        let _ = self.0.changed.wait_timeout_while(self.lock(), limit, |s| s.talking > 0);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.version += 1;
        self.0.changed.notify_all();
    }

    // A panic elsewhere leaves a status that is at worst one step old.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Board::conversation`].
pub(crate) struct Conversation(Board);

impl Drop for Conversation {
    fn drop(&mut self) {
        self.0.lock().talking -= 1;
        self.0.0.changed.notify_all();
    }
}
