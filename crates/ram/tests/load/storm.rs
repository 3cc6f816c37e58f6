//! Random writes from many threads at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::mm::Advice;

use super::Kind;
use super::area::{Area, fork_briefly};

/// xorshift64*: quick, repeatable, good enough to scatter writes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

/// Where a storm is held *between* two writes, as a guest is between two instructions. A signal would also stop a
/// thread whose write has brought a page back and not changed it yet.
pub struct Gate {
    /// Not zero: no write may begin. Set from outside, through the process's memory.
    pub closed: AtomicU64,
    /// How many threads may be writing.
    pub inside: AtomicU64,
}

pub static GATE: Gate = Gate { closed: AtomicU64::new(0), inside: AtomicU64::new(0) };

impl Gate {
    fn pass<T>(&self, what: impl FnOnce() -> T) -> T {
        loop {
            self.inside.fetch_add(1, Ordering::SeqCst);
            if self.closed.load(Ordering::SeqCst) == 0 {
                let done = what();
                self.inside.fetch_sub(1, Ordering::SeqCst);
                return done;
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// `writes` writes by each of `threads` threads, one more of which forks all the while.
pub fn storm(areas: &[Area], seed: u64, threads: u64, writes: u64) {
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (thread + 1));
                let one = move |random, write| GATE.pass(|| one_write(areas, random, write));
                scope.spawn(move || (0..writes).fold(random, one))
            })
            .collect();
        scope.spawn(move || {
            while writers.iter().any(|writer| !writer.is_finished()) {
                GATE.pass(fork_briefly);
                // Without a pause the writers would do little else than copy pages for the children.
                thread::sleep(Duration::from_millis(10));
            }
        });
    });
}

fn one_write(areas: &[Area], mut random: Random, write: u64) -> Random {
    let area = &areas[random.below(areas.len())];
    let hot = random.below(2) == 0;
    let page = random.below(if hot { 64 } else { area.pages() });
    match random.below(1000) {
        // A content that comes back: what a tracker that compares must not be fooled by.
        0..200 => area.store(page, 0, write & 1),
        200..240 => area.kernel_store(page, write as u8),
        240..243 => {
            let pages = if area.kind == Kind::Anonymous && random.below(50) == 0 { 512 } else { 16 };
            area.drop_pages(page, (1 + random.below(pages)).min(area.pages() - page));
        }
        243..245 => {
            area.advise(page, (1 + random.below(16)).min(area.pages() - page), Advice::LinuxPageOut);
        }
        _ => area.store(page, random.below(512), write),
    }
    random
}
