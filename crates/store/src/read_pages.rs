//! Many pages at once: each frame is decoded once, on several threads.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use watari_types::{PAGE_SIZE, PageHash};

use crate::error::{At, Error};
use crate::pack::{Decoder, Pack};
use crate::packs::Place;
use crate::store::Store;

/// Receives neighbouring pages: the number of the first, and their content.
type Sink<'a> = &'a (dyn Fn(u32, &[u8]) -> io::Result<()> + Sync);

/// What is to be done for the pages of one frame.
type Work<'a> = &'a (dyn Fn(&[Wanted], &mut Decoder) -> Result<(), Error> + Sync);

/// A page that is wanted, and where it is.
pub(crate) struct Wanted {
    pub(crate) place: Place,
    number: u32,
    name: PageHash,
}

impl Store {
    /// Hands the content of `pages`, given by number and name, to `sink`, from `threads` threads at once and in
    /// no particular order. Each frame is decoded once. Pages that are neighbours in the region and in a frame
    /// come in one call, so the bytes are a multiple of the page size. Zero pages are not handed out.
    ///
    /// If a page is missing, nothing is handed out. After another error, some pages have been.
    pub fn read_pages(
        &self,
        pages: impl Iterator<Item = (u32, PageHash)>,
        threads: usize,
        sink: &(dyn Fn(u32, &[u8]) -> io::Result<()> + Sync),
    ) -> Result<(), Error> {
        self.each_frame(pages, threads, &|wanted, decoder| match self.hand_out(wanted, decoder, sink) {
            Err(e) if e.is_gone() => self.hand_out_singly(wanted, sink),
            done => done,
        })
    }

    /// Checks that every one of `pages` can be read: that it is known, and that the frame it is in is, bit by bit,
    /// the one that was written. Several times as fast as reading them, as nothing is decompressed.
    pub fn check_readable(
        &self,
        pages: impl Iterator<Item = (u32, PageHash)>,
        threads: usize,
    ) -> Result<(), Error> {
        let bases = Mutex::new(HashSet::new());
        self.each_frame(pages, threads, &|wanted, decoder| {
            let Place { pack, frame, .. } = &wanted[0].place;
            match decoder.check(pack, *frame) {
                Err(e) if e.is_gone() => self.hand_out_singly(wanted, &|_, _| Ok(())),
                checked => {
                    checked.map(|(_, names)| bases.lock().extend(names.iter().map(|name| PageHash(*name))))
                }
            }
        })?;
        let bases = (0..).zip(bases.into_inner());
        self.each_frame(bases, threads, &|wanted, decoder| {
            let Place { pack, frame, .. } = &wanted[0].place;
            decoder.check(pack, *frame).map(drop)
        })
    }

    /// Does `work` for each frame with some of `pages`, on several threads.
    pub(crate) fn each_frame(
        &self,
        pages: impl Iterator<Item = (u32, PageHash)>,
        threads: usize,
        work: Work<'_>,
    ) -> Result<(), Error> {
        let mut wanted = self.locate(pages)?;
        wanted.sort_unstable_by_key(|w| (w.frame(), w.number));
        let frames: Vec<&[Wanted]> = wanted.chunk_by(|a, b| a.frame() == b.frame()).collect();
        let job = Job { store: self, work, frames, next: AtomicUsize::new(0), stop: AtomicBool::new(false) };
        if threads.min(job.frames.len()) <= 1 {
            return job.run();
        }
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(job.frames.len()) {
                scope.spawn(|| {
                    if let Err(e) = job.run() {
                        job.stop.store(true, Ordering::Relaxed);
                        failure.lock().get_or_insert(e);
                    }
                });
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    fn locate(&self, pages: impl Iterator<Item = (u32, PageHash)>) -> Result<Vec<Wanted>, Error> {
        let mut pages: Vec<_> = pages.filter(|(_, page)| !page.is_zero_page()).collect();
        self.packs().sort_as_they_lie(&mut pages);
        let mut wanted = Vec::with_capacity(pages.len());
        let mut refreshed = false;
        for (number, name) in pages {
            let mut place = self.find(&name);
            if place.is_none() && !std::mem::replace(&mut refreshed, true) {
                self.refresh()?;
                place = self.find(&name);
            }
            wanted.push(Wanted { place: place.ok_or_else(|| self.missing(&name))?, number, name });
        }
        Ok(wanted)
    }

    fn hand_out(&self, wanted: &[Wanted], decoder: &mut Decoder, sink: Sink<'_>) -> Result<(), Error> {
        let Place { pack, frame, .. } = &wanted[0].place;
        let content = decoder.decode(pack, *frame)?;
        if content.bases.is_empty() {
            return hand_out_runs(wanted, content.pages, sink);
        }
        let mut page = [0; PAGE_SIZE];
        for w in wanted {
            if let Some(base) = content.copy(w.place.slot, &mut page) {
                self.complete(&mut page, &base, pack, *frame)?;
            }
            hand_over(sink, w.number, &page)?;
        }
        Ok(())
    }

    /// For pages whose pack was removed meanwhile because another one holds them now.
    fn hand_out_singly(&self, wanted: &[Wanted], sink: Sink<'_>) -> Result<(), Error> {
        let mut content = [0; PAGE_SIZE];
        for w in wanted {
            self.read_page(&w.name, &mut content)?;
            hand_over(sink, w.number, &content)?;
        }
        Ok(())
    }
}

impl Wanted {
    /// Equal for pages of one frame only; all frames of a pack come one after the other.
    fn frame(&self) -> (*const Pack, u32) {
        (Arc::as_ptr(&self.place.pack), self.place.frame)
    }

    fn follows(&self, before: &Wanted) -> bool {
        before.number.checked_add(1) == Some(self.number) && before.place.slot + 1 == self.place.slot
    }

    /// Its name.
    pub(crate) fn page(&self) -> &PageHash {
        &self.name
    }
}

fn hand_out_runs(wanted: &[Wanted], content: &[u8], sink: Sink<'_>) -> Result<(), Error> {
    for run in wanted.chunk_by(|a, b| b.follows(a)) {
        let from = run[0].place.slot as usize * PAGE_SIZE;
        hand_over(sink, run[0].number, &content[from..][..run.len() * PAGE_SIZE])?;
    }
    Ok(())
}

fn hand_over(sink: Sink<'_>, page: u32, content: &[u8]) -> Result<(), Error> {
    sink(page, content).map_err(|source| Error::Sink { page, source })
}

/// The frames of one call, shared by its threads.
struct Job<'a> {
    store: &'a Store,
    work: Work<'a>,
    frames: Vec<&'a [Wanted]>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Job<'_> {
    fn run(&self) -> Result<(), Error> {
        let mut decoder = Decoder::new().at("start decompressing", &self.store.layout().root)?;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(wanted) = self.frames.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            (self.work)(wanted, &mut decoder)?;
        }
        Ok(())
    }
}
