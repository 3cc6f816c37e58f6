//! One viewer: what it shows, and what it is sent next.
//!
//! Decides; sends nothing and has no clock. At most [`MOST_UNDERWAY`] updates are under way; when there is room for another, it
//! leads from what the viewer shows (or will, once all that is under way has come) to the newest picture. So there is no backlog,
//! and who is slow sees fewer pictures and not older ones.
//!
//! ```text
//!  a block that differs ─┬─ one colour ──────────────────────────────────→ Fill
//!                        ├─ moved, with what is around it ───────────────→ Copy
//!                        ├─ was there before ────────────────────────────→ Recall
//!                        ├─ few colours: text, lines ────────────────────→ Exact
//!                        └─ many ─→ Rough ─┬─ it changes ────────────────→ Rough
//!                                          └─ still for a while ─────────→ Exact, as many as the line takes
//! ```

use std::collections::VecDeque;

use lru::LruCache;

use crate::grid::{At, BLOCK, Block, Grid};
use crate::plan::{Op, Plan};
use crate::scroll;

/// How many blocks a viewer keeps.
pub const SLOTS: u16 = 512;
/// How many updates may be under way.
const MOST_UNDERWAY: usize = 2;
/// A block that has not changed for so long is sent exactly, in milliseconds.
const STILL_MS: u64 = 120;
/// What a block of many colours takes exactly, in bytes, about.
const EXACT_BYTES: u64 = 9000;
/// Of these as many go at once as take so long, in milliseconds: whatever changes meanwhile waits for them.
const REFINING_MS: u64 = 40;
/// Before it is known how fast the line is, as many bytes.
const REFINING_BYTES: u64 = 64 << 10;
/// The steps of quality: few, so that viewers who are about as fast get the same.
const QUALITIES: [u8; 4] = [25, 45, 65, 80];
/// An update that takes so much longer than the quickest, in milliseconds, was too large.
const SLOW_MS: u64 = 80;
/// And one that takes only so much longer might have been larger.
const QUICK_MS: u64 = 25;
/// So many quick ones in a row are answered with more quality.
const CONFIDENT: u32 = 8;

/// What a viewer shows, and how fast it is.
pub struct Viewer {
    /// What it shows exactly, as [`Grid::strips`] has it, column by column; zero is what it shows otherwise.
    shown: Vec<u64>,
    /// What each block shows roughly, or zero.
    roughly: Vec<u128>,
    size: (u32, u32),
    slots: LruCache<u128, u16>,
    underway: VecDeque<Underway>,
    /// The number of the next update.
    next: u32,
    pace: Pace,
}

struct Underway {
    number: u32,
    sent_at: u64,
    bytes: u64,
}

/// How fast what is sent arrives.
#[derive(Debug)]
struct Pace {
    /// The least time that any update took, in milliseconds.
    quickest: u64,
    /// Bytes a millisecond, of late.
    rate: Option<f64>,
    /// Which of [`QUALITIES`].
    quality: usize,
    /// How many were quick since the last that was not.
    quick: u32,
}

impl Default for Viewer {
    fn default() -> Viewer {
        Viewer {
            shown: Vec::new(),
            roughly: Vec::new(),
            size: (0, 0),
            slots: LruCache::unbounded(),
            underway: VecDeque::new(),
            next: 0,
            pace: Pace { quickest: u64::MAX, rate: None, quality: QUALITIES.len() - 1, quick: 0 },
        }
    }
}

impl Viewer {
    /// What it is to be sent at the time `now`, in milliseconds, and the number under which it will acknowledge that: nothing
    /// while enough is under way, or it shows what there is. Who calls it says with [`Viewer::sent`] how much it was.
    pub fn next(&mut self, grid: &Grid, now: u64) -> Option<(u32, Plan)> {
        if self.underway.len() >= MOST_UNDERWAY {
            return None;
        }
        let mut plan = Plan { quality: QUALITIES[self.pace.quality], ..Plan::default() };
        let size = (grid.picture().width(), grid.picture().height());
        if size != self.size {
            self.begin(grid, size);
            plan.begins = true;
        } else {
            plan.ops = self.scrolls(grid);
            plan.ops.iter().for_each(|copy| self.copy(grid, copy));
        }
        self.add_blocks(grid, now, &mut plan.ops);
        if plan.ops.is_empty() && !plan.begins {
            return None;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.underway.push_back(Underway { number, sent_at: now, bytes: 0 });
        Some((number, plan))
    }

    /// The newest update took so many bytes.
    pub fn sent(&mut self, bytes: u64) {
        if let Some(newest) = self.underway.back_mut() {
            newest.bytes = bytes;
        }
    }

    /// It is to begin anew: what it shows is of another screen, or is not known.
    pub fn begin_anew(&mut self) {
        self.size = (0, 0);
    }

    /// It shows an update, and so all before that.
    pub fn acknowledge(&mut self, number: u32, now: u64) {
        let Some(place) = self.underway.iter().position(|update| update.number == number) else { return };
        for update in self.underway.drain(..=place) {
            if update.number == number {
                self.pace.hear(&update, now);
            }
        }
    }

    /// When there will be something to send although nothing changes, in milliseconds: the rest of what it shows roughly.
    pub fn due(&self, grid: &Grid) -> Option<u64> {
        let rough = grid.all().zip(&self.roughly).filter(|(_, roughly)| **roughly != 0);
        rough.map(|((_, block), _)| block.changed_at + STILL_MS).min()
    }

    /// Whether it shows just what there is.
    pub fn is_exact(&self, grid: &Grid) -> bool {
        (grid.picture().width(), grid.picture().height()) == self.size
            && grid.all().all(|(at, _)| self.shows(grid, at))
    }

    /// What has scrolled.
    fn scrolls(&self, grid: &Grid) -> Vec<Op> {
        let contents: Vec<u128> = grid.all().map(|(_, block)| block.content).collect();
        scroll::find(grid, &self.shown, |column, y| {
            let index = (y as u32 / BLOCK * grid.columns() + column) as usize;
            self.roughly[index] == contents[index]
        })
    }

    fn begin(&mut self, grid: &Grid, size: (u32, u32)) {
        self.size = size;
        self.shown = vec![0; grid.columns() as usize * size.1 as usize];
        self.roughly = vec![0; grid.all().count()];
        self.slots.clear();
    }

    /// The strips of a block among all.
    fn strips(&self, grid: &Grid, at: At) -> std::ops::Range<usize> {
        let rect = grid.rect(at);
        let start = at.column as usize * self.size.1 as usize + rect.y as usize;
        start..start + rect.height as usize
    }

    fn shows(&self, grid: &Grid, at: At) -> bool {
        let rect = grid.rect(at);
        let wanted = &grid.strips(at.column)[rect.y as usize..][..rect.height as usize];
        self.shown[self.strips(grid, at)] == *wanted
    }

    /// What a copy makes of what it shows.
    fn copy(&mut self, grid: &Grid, copy: &Op) {
        let Op::Copy { column, columns, y, height, down } = *copy else { return };
        let whole = self.size.1 as usize;
        for column in column..column + columns {
            let shown = &mut self.shown[column as usize * whole..][..whole];
            let Some(from) = y.checked_add_signed(-down) else { continue };
            shown.copy_within(from as usize..(from + height) as usize, y as usize);
            // What one shows of which only a part was copied over is nothing that has a name.
            for row in y / BLOCK..(y + height).div_ceil(BLOCK) {
                self.roughly[(row * grid.columns() + column) as usize] = 0;
            }
        }
    }

    fn add_blocks(&mut self, grid: &Grid, now: u64, ops: &mut Vec<Op>) {
        let mut refining = self.pace.refining();
        for (index, (at, block)) in grid.all().enumerate() {
            if self.shows(grid, at) {
                self.roughly[index] = 0;
                continue;
            }
            let Some(op) = self.op(index, at, block, now, &mut refining) else { continue };
            let strips = self.strips(grid, at);
            match op {
                Op::Rough { .. } => {
                    self.shown[strips].fill(0);
                    self.roughly[index] = block.content;
                }
                _ => {
                    let rect = grid.rect(at);
                    let wanted = &grid.strips(at.column)[rect.y as usize..][..rect.height as usize];
                    self.shown[strips].copy_from_slice(wanted);
                    self.roughly[index] = 0;
                }
            }
            add(ops, op);
        }
    }

    /// How a block gets to what it is to be; nothing for one that is to stay as it is for now.
    fn op(&mut self, index: usize, at: At, block: &Block, now: u64, refining: &mut u64) -> Option<Op> {
        if let Some(colour) = block.colour {
            return Some(Op::Fill { at, count: 1, colour });
        }
        if let Some(slot) = self.slots.get(&block.content) {
            return Some(Op::Recall { at, slot: *slot });
        }
        if block.is_colourful {
            if self.roughly[index] != block.content {
                return Some(Op::Rough { at });
            }
            if block.is_motion(now) || now < block.changed_at + STILL_MS || *refining == 0 {
                return None;
            }
            *refining -= 1;
        }
        Some(Op::Exact { at, slot: self.keep(block.content) })
    }

    /// Where it is to keep a block: where there is room, or where what it needed longest ago was.
    fn keep(&mut self, content: u128) -> u16 {
        let used = self.slots.len() as u16;
        let slot = if used < SLOTS { used } else { self.slots.pop_lru().map_or(0, |(_, slot)| slot) };
        self.slots.put(content, slot);
        slot
    }
}

/// Adds a step, to the one before it where that is the same for the block beside.
fn add(ops: &mut Vec<Op>, op: Op) {
    if let (Some(Op::Fill { at: first, count, colour }), Op::Fill { at, colour: same, .. }) =
        (ops.last_mut(), op)
        && (*colour, first.row, first.column + *count) == (same, at.row, at.column)
    {
        *count += 1;
        return;
    }
    ops.push(op);
}

impl Pace {
    fn hear(&mut self, update: &Underway, now: u64) {
        let took = now.saturating_sub(update.sent_at).max(1);
        self.quickest = self.quickest.min(took);
        let late = took - self.quickest;
        if update.bytes >= 8192 {
            let rate = update.bytes as f64 / took as f64;
            self.rate = Some(self.rate.map_or(rate, |before| before * 0.7 + rate * 0.3));
        }
        if late > SLOW_MS {
            self.quality = self.quality.saturating_sub(1);
            self.quick = 0;
        } else if late < QUICK_MS {
            self.quick += 1;
            if self.quick >= CONFIDENT {
                self.quality = (self.quality + 1).min(QUALITIES.len() - 1);
                self.quick = 0;
            }
        }
    }

    /// How many blocks of many colours may go exactly at once.
    fn refining(&self) -> u64 {
        let bytes = self.rate.map_or(REFINING_BYTES, |rate| (rate * REFINING_MS as f64) as u64);
        (bytes / EXACT_BYTES).max(1)
    }
}
