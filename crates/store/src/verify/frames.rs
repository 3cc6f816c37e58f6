//! Every frame, on all cores.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use watari_types::{Page, PageHash};

use super::VerifyProgress;
use crate::error::Error;
use crate::pack::{Decoder, Pack, PackId, broken, names_of};
use crate::packs::MOST_MOVES;
use crate::store::Store;

/// What is wrong with a pack, or a frame of it.
pub(super) struct Flaw {
    pub(super) pack: Arc<Pack>,
    pub(super) error: Error,
    pub(super) lost: Lost,
}

/// What cannot be read for a flaw.
pub(super) enum Lost {
    /// Nobody knows which pages these are.
    Pack,
    /// These of a frame, each with its position in the pack.
    Pages(Vec<(u32, PageHash)>),
    /// These, because what they are changes of cannot be read. The frame itself is as it was written.
    Changes(Vec<(u32, PageHash)>),
}

pub(super) fn frames_of(pack: &Arc<Pack>) -> impl Iterator<Item = ((PackId, u32), Arc<Pack>)> {
    (0..pack.frames().len() as u32).map(|frame| ((pack.id, frame), Arc::clone(pack)))
}

/// Frames being checked by several threads.
pub(super) struct FrameCheck<'a> {
    store: &'a Store,
    frames: Vec<(Arc<Pack>, u32)>,
    next: AtomicUsize,
    done: AtomicU64,
    total: u64,
}

impl<'a> FrameCheck<'a> {
    /// Of frames of which those of a pack follow each other.
    pub(super) fn new(store: &'a Store, frames: impl Iterator<Item = (Arc<Pack>, u32)>) -> FrameCheck<'a> {
        let frames: Vec<_> = frames.collect();
        let total = frames.iter().map(|(pack, frame)| u64::from(pack.frames()[*frame as usize].pages)).sum();
        FrameCheck { store, frames, next: AtomicUsize::new(0), done: AtomicU64::new(0), total }
    }

    /// How many pages were looked at so far.
    pub(super) fn pages_done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Checks all frames; what is wrong with them. Fails only if there is no memory to begin with.
    pub(super) fn run(&self, progress: &(dyn Fn(VerifyProgress) + Sync)) -> io::Result<Vec<Flaw>> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let flaws = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work(progress, &flaws))).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(flaws.into_inner())
    }

    fn work(&self, progress: &(dyn Fn(VerifyProgress) + Sync), flaws: &Mutex<Vec<Flaw>>) -> io::Result<()> {
        let mut decoder = Decoder::new()?;
        // Of the pack that was looked at last.
        let mut last: Option<(PackId, Option<Vec<PageHash>>)> = None;
        while let Some((pack, frame)) = self.frames.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let (_, names) = match last.take().filter(|(id, _)| *id == pack.id) {
                Some(known) => last.insert(known),
                None => {
                    let flaw = |error| Flaw { pack: Arc::clone(pack), error, lost: Lost::Pack };
                    let names = self.wherever(pack, |pack| pack.names());
                    last.insert((pack.id, names.map_err(|e| flaws.lock().push(flaw(e))).ok()))
                }
            };
            if let Some(flaw) = names.as_ref().and_then(|names| self.frame(&mut decoder, pack, *frame, names))
            {
                flaws.lock().push(flaw);
            }
            let pages = u64::from(pack.frames()[*frame as usize].pages);
            let pages_done = self.done.fetch_add(pages, Ordering::Relaxed) + pages;
            progress(VerifyProgress { pages_done, pages_total: self.total });
        }
        Ok(())
    }

    /// Does something with a pack, and again if it has been moved meanwhile.
    fn wherever<T>(
        &self,
        pack: &Arc<Pack>,
        mut work: impl FnMut(&Arc<Pack>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut present = Arc::clone(pack);
        for _ in 0..MOST_MOVES {
            match work(&present) {
                Err(e) if e.is_gone() => {
                    self.store.refresh()?;
                    present = self.store.packs().get(pack.id).unwrap_or(present);
                }
                done => return done,
            }
        }
        work(&present)
    }

    /// What is wrong with a frame, if it is not what was written or holds other pages than the index says.
    fn frame(
        &self,
        decoder: &mut Decoder,
        pack: &Arc<Pack>,
        number: u32,
        names: &[PageHash],
    ) -> Option<Flaw> {
        let frame = &pack.frames()[number as usize];
        let pages = || (frame.first_page..).zip(names_of(frame, names).iter().copied());
        let (error, lost) = match self.wherever(pack, |pack| self.wrong_pages(decoder, pack, number, names)) {
            Err(error) => (error, Lost::Pages(pages().collect())),
            Ok((wrong, error)) => {
                let lost =
                    pages().zip(wrong).filter(|(_, is_wrong)| *is_wrong).map(|(page, _)| page).collect();
                match error {
                    Some(error) if pack.is_whole(number) => (error, Lost::Pages(lost)),
                    Some(error) => (error, Lost::Changes(lost)),
                    None => return None,
                }
            }
        };
        Some(Flaw { pack: Arc::clone(pack), error, lost })
    }

    /// Which pages of a frame that is what was written are not what they are named after, and what is wrong with the first.
    fn wrong_pages(
        &self,
        decoder: &mut Decoder,
        pack: &Arc<Pack>,
        number: u32,
        names: &[PageHash],
    ) -> Result<(Vec<bool>, Option<Error>), Error> {
        let content = decoder.decode_checked(pack, number)?;
        let frame = &pack.frames()[number as usize];
        let mut completed: Vec<Page> = Vec::new();
        let mut problems: Vec<Option<Error>> = Vec::new();
        let pages = match content.pages.as_chunks().0 {
            whole if content.bases.is_empty() => whole,
            changes => {
                completed.extend(changes);
                for (page, base) in completed.iter_mut().zip(content.bases) {
                    match self.store.complete(page, &PageHash(*base), pack, number) {
                        Err(e) if e.is_gone() => return Err(e),
                        done => problems.push(done.err()),
                    }
                }
                &completed
            }
        };
        problems.resize_with(pages.len(), || None);
        for ((problem, found), name) in
            problems.iter_mut().zip(PageHash::of_all(pages)).zip(names_of(frame, names))
        {
            if problem.is_none() && found != *name {
                *problem = Some(broken(pack, frame, "holds other pages than the index says"));
            }
        }
        let wrong = problems.iter().map(Option::is_some).collect();
        Ok((wrong, problems.into_iter().flatten().next()))
    }
}
