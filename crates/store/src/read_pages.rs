//! Many pages at once: each frame is decoded once, on several threads.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use watari_types::{PAGE_SIZE, Page, PageHash};

use crate::error::{At, Error};
use crate::locate::Wanted;
use crate::pack::Decoder;
use crate::packs::Place;
use crate::store::Store;

/// Receives neighbouring pages: the number of the first, and their content.
type Sink<'a> = &'a (dyn Fn(u32, &[u8]) -> io::Result<()> + Sync);

/// What is to be done for a part of the pages: those of one frame, or of several.
type Work<'a, Part> = &'a (dyn Fn(Part, &mut Decoder) -> Result<(), Error> + Sync);

/// At most so many frames with changes are decoded before what they are changes of, so that each frame with some of that is
/// decoded once, for all that is wanted of it. They are kept as what differs: 128 MiB at most, and a tenth of it mostly.
const FRAMES_OF_CHANGES: usize = 1024;

/// A page of which it is known so far how it differs from another.
struct Change {
    number: u32,
    name: PageHash,
    /// Where the other is.
    base: Place,
    /// The bytes that are not 0, each with where it is.
    bytes: Box<[(u16, u8)]>,
}

impl Change {
    fn add_to(&self, page: &mut Page) {
        self.bytes.iter().for_each(|(at, byte)| page[*at as usize] ^= byte);
    }
}

/// The bytes of a page that are not 0.
fn sparse(page: &Page) -> Box<[(u16, u8)]> {
    let words = (0..).step_by(8).zip(page.as_chunks::<8>().0).filter(|(_, word)| **word != [0; 8]);
    let bytes = words.flat_map(|(at, word)| (at..).zip(*word));
    bytes.filter(|(_, byte)| *byte != 0).collect()
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
        let (mut whole, changes): (Vec<_>, Vec<_>) =
            self.locate(pages)?.into_iter().partition(|w| w.place.is_whole());
        let frames = by_frame(&changes);
        // With nothing to be changed there are still the whole pages.
        let mut parts: Vec<_> = frames.chunks(FRAMES_OF_CHANGES).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for part in parts {
            let changes = self.changes_of(part, threads, sink)?;
            let frames = join(&whole, &changes);
            self.on_threads(&frames, threads, &|frame, decoder| self.hand_out(frame, decoder, sink))?;
            whole.clear();
        }
        Ok(())
    }

    /// Checks that every one of `pages` can be read: that it is known, and that the frame it is in is, bit by bit,
    /// the one that was written. Several times as fast as reading them, as nothing is decompressed.
    pub fn check_readable(
        &self,
        pages: impl Iterator<Item = (u32, PageHash)>,
        threads: usize,
    ) -> Result<(), Error> {
        let bases = Mutex::new(HashSet::new());
        self.each_frame(pages, threads, |wanted, decoder| {
            let Place { pack, frame, .. } = &wanted[0].place;
            match decoder.check(pack, *frame) {
                Err(e) if e.is_gone() => self.hand_out_singly(wanted, &|_, _| Ok(())),
                checked => {
                    checked.map(|(_, names)| bases.lock().extend(names.iter().map(|name| PageHash(*name))))
                }
            }
        })?;
        let bases = (0..).zip(bases.into_inner());
        self.each_frame(bases, threads, |wanted, decoder| {
            let Place { pack, frame, .. } = &wanted[0].place;
            decoder.check(pack, *frame).map(drop)
        })
    }

    /// Does `work` for each frame with some of `pages`, on several threads.
    pub(crate) fn each_frame(
        &self,
        pages: impl Iterator<Item = (u32, PageHash)>,
        threads: usize,
        work: impl Fn(&[Wanted], &mut Decoder) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let wanted = self.locate(pages)?;
        self.on_threads(&by_frame(&wanted), threads, &|wanted, decoder| work(wanted, decoder))
    }

    fn on_threads<Part: Copy + Sync>(
        &self,
        parts: &[Part],
        threads: usize,
        work: Work<'_, Part>,
    ) -> Result<(), Error> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let job = Job { store: self, work, parts, next, stop };
        if threads.min(parts.len()) <= 1 {
            return job.run();
        }
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(parts.len()) {
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

    /// What is wanted of frames of changes, as what they are changes of lies.
    fn changes_of(&self, frames: &[&[Wanted]], threads: usize, sink: Sink<'_>) -> Result<Vec<Change>, Error> {
        let changes = Mutex::new(Vec::new());
        self.on_threads(frames, threads, &|wanted, decoder| match self.changes(wanted, decoder) {
            Err(e) if e.is_gone() => self.hand_out_singly(wanted, sink),
            found => found.map(|found| changes.lock().extend(found)),
        })?;
        let mut changes = changes.into_inner();
        changes.sort_unstable_by_key(|change| (change.base.frame_key(), change.number));
        Ok(changes)
    }

    /// What is wanted of a frame of changes.
    fn changes(&self, wanted: &[Wanted], decoder: &mut Decoder) -> Result<Vec<Change>, Error> {
        let Place { pack, frame, .. } = &wanted[0].place;
        let content = decoder.decode(pack, *frame)?;
        let mut changes = Vec::with_capacity(wanted.len());
        let mut change = [0; PAGE_SIZE];
        for w in wanted {
            if let Some(base) = content.copy(w.place.slot, &mut change) {
                let base = self.base(&base, pack, *frame)?;
                changes.push(Change { number: w.number, name: w.name, base, bytes: sparse(&change) });
            }
        }
        Ok(changes)
    }

    fn hand_out(&self, frame: Frame<'_>, decoder: &mut Decoder, sink: Sink<'_>) -> Result<(), Error> {
        let Place { pack, frame: number, .. } = frame.place();
        let content = match decoder.decode(pack, *number) {
            Err(e) if e.is_gone() => {
                self.hand_out_singly(frame.whole, sink)?;
                let changed = frame.changes.iter().map(|change| (change.number, &change.name));
                return self.hand_out_each(changed, sink);
            }
            content => content?,
        };
        for run in frame.whole.chunk_by(|a, b| b.follows(a)) {
            let from = run[0].place.slot as usize * PAGE_SIZE;
            hand_over(sink, run[0].number, &content.pages[from..][..run.len() * PAGE_SIZE])?;
        }
        let mut page = [0; PAGE_SIZE];
        for change in frame.changes {
            content.copy(change.base.slot, &mut page);
            change.add_to(&mut page);
            hand_over(sink, change.number, &page)?;
        }
        Ok(())
    }

    /// For pages whose pack was removed meanwhile because another one holds them now.
    fn hand_out_singly(&self, wanted: &[Wanted], sink: Sink<'_>) -> Result<(), Error> {
        self.hand_out_each(wanted.iter().map(|w| (w.number, &w.name)), sink)
    }

    fn hand_out_each<'a>(
        &self,
        pages: impl Iterator<Item = (u32, &'a PageHash)>,
        sink: Sink<'_>,
    ) -> Result<(), Error> {
        let mut content = [0; PAGE_SIZE];
        for (number, name) in pages {
            self.read_page(name, &mut content)?;
            hand_over(sink, number, &content)?;
        }
        Ok(())
    }
}

/// What is wanted of a frame of whole pages: some of them, and what are changes of some.
#[derive(Clone, Copy)]
struct Frame<'a> {
    whole: &'a [Wanted],
    changes: &'a [Change],
}

impl Frame<'_> {
    fn place(&self) -> &Place {
        match self.whole.first() {
            Some(wanted) => &wanted.place,
            None => &self.changes[0].base,
        }
    }
}

/// The frames of which pages or changes are wanted; both are sorted as they lie.
fn join<'a>(whole: &'a [Wanted], changes: &'a [Change]) -> Vec<Frame<'a>> {
    let mut frames = Vec::new();
    let mut changes = changes.chunk_by(|a, b| a.base.frame_key() == b.base.frame_key()).peekable();
    for whole in by_frame(whole) {
        let key = whole[0].place.frame_key();
        while let Some(changes) = changes.next_if(|changes| changes[0].base.frame_key() < key) {
            frames.push(Frame { whole: &[], changes });
        }
        let changes = changes.next_if(|changes| changes[0].base.frame_key() == key).unwrap_or_default();
        frames.push(Frame { whole, changes });
    }
    frames.extend(changes.map(|changes| Frame { whole: &[], changes }));
    frames
}

/// The pages of each frame, of pages that are sorted as they lie.
fn by_frame(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    wanted.chunk_by(|a, b| a.place.frame_key() == b.place.frame_key()).collect()
}

impl Wanted {
    fn follows(&self, before: &Wanted) -> bool {
        before.number.checked_add(1) == Some(self.number) && before.place.slot + 1 == self.place.slot
    }

    /// Its name.
    pub(crate) fn page(&self) -> &PageHash {
        &self.name
    }
}

fn hand_over(sink: Sink<'_>, page: u32, content: &[u8]) -> Result<(), Error> {
    sink(page, content).map_err(|source| Error::Sink { page, source })
}

/// The parts of one call, shared by its threads.
struct Job<'a, Part> {
    store: &'a Store,
    work: Work<'a, Part>,
    parts: &'a [Part],
    next: AtomicUsize,
    stop: AtomicBool,
}

impl<Part: Copy> Job<'_, Part> {
    fn run(&self) -> Result<(), Error> {
        let mut decoder = Decoder::new().at("start decompressing", &self.store.layout().root)?;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            (self.work)(*part, &mut decoder)?;
        }
        Ok(())
    }
}
