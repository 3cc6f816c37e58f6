//! Which regions of the disk may have something else on the medium than the newest snapshot.
//!
//! A region is *touched* durably before the first change in it. That takes a sync, so regions are large, many changes
//! share a sync, and a region is only forgotten when it was left alone for a while: what is written all the time is
//! touched once.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

use crate::bits;
use crate::medium::SyncedWords;

/// How many regions a disk has at most: their bits fill one sector.
pub(crate) const REGIONS: usize = 4096;

/// Snapshots for which a region stays touched after its last change. Simulated lives are short.
const PATIENCE: u8 = if cfg!(test) { 0 } else { 8 };

pub(crate) struct Regions {
    /// Regions of which the medium knows that they are touched.
    durable: Vec<AtomicU64>,
    /// Regions changed since the last snapshot.
    used: Vec<AtomicU64>,
    /// Changes at work in each region.
    at_work: Vec<AtomicU32>,
    /// Snapshots since the last change in each region.
    quiet: Mutex<Vec<u8>>,
    /// Held for a sync that makes regions durable, and for forgetting some: of writers, only those that wait for such a
    /// sync anyway come here.
    turn: Mutex<()>,
}

/// Changes are at work in some regions, which are touched.
pub(crate) struct Entry<'a> {
    regions: &'a Regions,
    range: Range<u32>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        for region in self.range.clone() {
            self.regions.at_work[region as usize].fetch_sub(1, Ordering::Release);
        }
    }
}

impl Regions {
    /// `touched` is on the medium as it is.
    pub(crate) fn new(touched: &[AtomicU64]) -> Regions {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Acquire));
        Regions {
            durable: touched.iter().map(copy).collect(),
            used: bits::clear_bitmap(REGIONS / 64),
            at_work: std::iter::repeat_with(|| AtomicU32::new(0)).take(REGIONS).collect(),
            quiet: Mutex::new(vec![0; REGIONS]),
            turn: Mutex::new(()),
        }
    }

    /// The regions of `all` that are touched.
    pub(crate) fn touched(&self, all: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        bits::runs(&self.durable, all).filter(|(touched, _)| *touched).flat_map(|(_, run)| run)
    }

    /// Touches regions: in `touched`, which are words of `medium`, and on the medium.
    pub(crate) fn enter(
        &self,
        range: Range<u32>,
        touched: &[AtomicU64],
        medium: &dyn SyncedWords,
    ) -> io::Result<Entry<'_>> {
        for region in range.clone() {
            self.at_work[region as usize].fetch_add(1, Ordering::AcqRel);
        }
        let entry = Entry { regions: self, range: range.clone() };
        bits::set_range(&self.used, range.clone());
        // Whoever forgets a region takes it from `durable` first and looks for changes at work then.
        fence(Ordering::SeqCst);
        if !self.are_durable(&range) {
            // So that the sync somebody else is about to begin does for this one, too.
            bits::set_range(touched, range.clone());
            let _turn = self.turn.lock();
            if !self.are_durable(&range) {
                bits::set_range(touched, range);
                let now: Vec<u64> = touched.iter().map(|word| word.load(Ordering::Acquire)).collect();
                medium.sync()?;
                for (durable, now) in self.durable.iter().zip(now) {
                    bits::set(durable, now);
                }
            }
        }
        Ok(entry)
    }

    fn are_durable(&self, range: &Range<u32>) -> bool {
        bits::run_at(&self.durable, range.clone()) == (true, range.clone())
    }

    /// Counts a snapshot, and returns the touched regions of `all` that nothing happened in for long enough.
    pub(crate) fn cold(&self, all: Range<u32>, differs: &impl Fn(u32) -> bool) -> Vec<u32> {
        let mut quiet = self.quiet.lock();
        let mut cold = Vec::new();
        for region in self.touched(all) {
            let snapshots = &mut quiet[region as usize];
            let (word, mask) = bits::place(&(region..region + 1));
            let used = self.used[word].fetch_and(!mask, Ordering::AcqRel) & mask != 0;
            *snapshots = if used || differs(region) { 0 } else { snapshots.saturating_add(1) };
            if *snapshots > PATIENCE {
                cold.push(region);
            }
        }
        cold
    }

    /// Regions are not touched any more, but for those in which something happens or happened: what was on the disk
    /// when they were found cold is on the medium now.
    pub(crate) fn forget(&self, cold: &[u32], touched: &[AtomicU64], differs: impl Fn(u32) -> bool) {
        let _turn = self.turn.lock();
        for region in cold {
            let (word, mask) = bits::place(&(*region..region + 1));
            self.durable[word].fetch_and(!mask, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            if self.at_work[*region as usize].load(Ordering::Acquire) > 0 || differs(*region) {
                self.durable[word].fetch_or(mask, Ordering::AcqRel);
            } else {
                touched[word].fetch_and(!mask, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words(Vec<AtomicU64>, AtomicU32);

    impl SyncedWords for Words {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }

        fn sync(&self) -> io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_region_is_synced_at_its_first_change_and_forgotten_only_when_nothing_happens_in_it() {
        let words = Words(bits::clear_bitmap(REGIONS / 64), AtomicU32::new(0));
        let regions = Regions::new(&words.0);
        let enter = |range| regions.enter(range, &words.0, &words).unwrap();
        let (all, same) = (0..REGIONS as u32, |_| false);
        for _ in 0..3 {
            drop(enter(5..8));
        }
        let still_at_work = enter(7..8);
        assert_eq!(words.1.load(Ordering::Relaxed), 1);
        assert_eq!(regions.cold(all.clone(), &same), [0; 0], "they were changed since the last snapshot");
        let cold = regions.cold(all.clone(), &same);
        assert_eq!(cold, [5, 6, 7]);
        // Region 6 was changed since it was found cold.
        regions.forget(&cold, &words.0, |region| region == 6);
        assert_eq!(regions.touched(all.clone()).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(words.0[0].load(Ordering::Relaxed), 1 << 6 | 1 << 7);
        drop(still_at_work);
        drop(enter(5..6));
        assert_eq!(words.1.load(Ordering::Relaxed), 2);
        assert_eq!(words.0[0].load(Ordering::Relaxed), 1 << 5 | 1 << 6 | 1 << 7);
    }
}
