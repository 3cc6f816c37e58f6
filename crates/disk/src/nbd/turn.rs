//! Something that one of several threads has at a time, and that goes to the one that began to wait last.
//!
//! Where threads do the same work, the one that was busy last has its memory still in the processor's caches, and as long
//! as two of them are enough the others sleep on.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use parking_lot::{Mutex, MutexGuard};

pub(super) struct Turns<T> {
    it: Mutex<T>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    is_taken: bool,
    waiting: Vec<Waiting>,
}

struct Waiting {
    thread: Thread,
    has_turn: Arc<AtomicBool>,
}

impl<T> Turns<T> {
    pub(super) fn new(it: T) -> Self {
        Self { it: Mutex::new(it), queue: Mutex::default() }
    }

    /// Waits for this thread's turn.
    pub(super) fn wait(&self) -> Turn<'_, T> {
        let waiting = self.queue.lock().enter();
        if let Some(has_turn) = waiting {
            while !has_turn.load(Ordering::Acquire) {
                thread::park();
            }
        }
        let end = End(&self.queue);
        Turn { it: self.it.lock(), _end: end }
    }
}

impl Queue {
    /// Takes the turn, or says where to see that it has come.
    fn enter(&mut self) -> Option<Arc<AtomicBool>> {
        if !std::mem::replace(&mut self.is_taken, true) {
            return None;
        }
        let has_turn = Arc::new(AtomicBool::new(false));
        self.waiting.push(Waiting { thread: thread::current(), has_turn: has_turn.clone() });
        Some(has_turn)
    }

    fn pass_on(&mut self) -> Option<Thread> {
        let next = self.waiting.pop();
        self.is_taken = next.is_some();
        next.map(|next| {
            next.has_turn.store(true, Ordering::Release);
            next.thread
        })
    }
}

/// A thread's turn; it ends when this is dropped.
pub(super) struct Turn<'a, T> {
    // Given up first: the next thread finds it free.
    it: MutexGuard<'a, T>,
    _end: End<'a>,
}

struct End<'a>(&'a Mutex<Queue>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let next = self.0.lock().pass_on();
        if let Some(thread) = next {
            thread.unpark();
        }
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_wait_is_next() {
        let order = Turns::new(Vec::new());
        thread::scope(|scope| {
            let turn = order.wait();
            for number in 0..4 {
                scope.spawn({
                    let order = &order;
                    move || order.wait().push(number)
                });
                while order.queue.lock().waiting.len() <= number {
                    thread::yield_now();
                }
            }
            drop(turn);
        });
        assert_eq!(*order.wait(), [3, 2, 1, 0]);
    }

    #[test]
    fn nobody_is_forgotten_and_nobody_is_in_each_others_way() {
        let count = Turns::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *count.wait() += 1;
                    }
                });
            }
        });
        assert_eq!(*count.wait(), 80_000);
        assert!(count.queue.lock().waiting.is_empty());
    }
}
