//! Counts the memory of all threads but the harness's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// The system's allocator, counted.
pub(crate) struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static TAKEN: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);
static BEGAN_WITH: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(true) };
}

/// What this thread takes and gives back from now on is not counted: it is the client, not the server.
pub(crate) fn not_counted_here() {
    COUNTED.set(false);
}

/// Forgets how much was taken at most so far.
pub(crate) fn begin() {
    let taken = TAKEN.load(Ordering::SeqCst);
    BEGAN_WITH.store(taken, Ordering::SeqCst);
    MOST.store(taken, Ordering::SeqCst);
}

/// The most bytes taken at any moment since [`begin`], beyond those taken then.
pub(crate) fn most_since_begin() -> usize {
    (MOST.load(Ordering::SeqCst) - BEGAN_WITH.load(Ordering::SeqCst)) as usize
}

fn took(bytes: usize) {
    if COUNTED.get() {
        let taken = TAKEN.fetch_add(bytes as isize, Ordering::SeqCst) + bytes as isize;
        MOST.fetch_max(taken, Ordering::SeqCst);
    }
}

fn gave_back(bytes: usize) {
    if COUNTED.get() {
        TAKEN.fetch_sub(bytes as isize, Ordering::SeqCst);
    }
}

// SAFETY: the system's allocator does everything; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave_back(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Both are there while the content moves from one to the other.
        took(bytes);
        // SAFETY: as the caller promised.
        let moved = unsafe { System.realloc(at, layout, bytes) };
        gave_back(layout.size());
        moved
    }
}
