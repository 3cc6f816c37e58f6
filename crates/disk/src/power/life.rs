//! A disk from one loss of power to the next: random operations, and what may be found after each event.
//!
//! Every sector is full of one byte, so that a vector of bytes tells the whole content.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use watari_types::{Generation, PAGE_SIZE, Page};

use super::medium::{Content, Event, Fate, LedgerWords, Random, Recorder, Remains, SECTOR};
use crate::engine::Engine;
use crate::ledger::{Layout, Ledger};
use crate::{Base, Disk, Sealed, Source, Zeroes, disk};

const PAGES: u32 = 150;
const SECTORS: usize = PAGES as usize * PAGE_SIZE / SECTOR;
const OPERATIONS: usize = 60;
const LAYOUT: Layout = Layout { bytes: PAGES as u64 * PAGE_SIZE as u64, region_pages: 8, has_source: true };

/// What each sector is full of.
type Sectors = Vec<u8>;

#[derive(Clone, Debug)]
enum Operation {
    Write { sectors: Range<usize>, byte: u8 },
    Zero { sectors: Range<usize>, how: Zeroes },
    Trim { pages: Range<usize> },
    Flush,
    Seal,
    Publish,
    Hydrate { pages: Range<u32> },
}

pub(super) struct Life {
    seed: u64,
    random: Random,
    folder: TempDir,
    /// What the medium held at its beginning: content and ledger.
    medium: (Vec<u8>, Vec<u64>),
    /// What a reader saw at its beginning, and the newest published snapshot.
    content: Sectors,
    published: Sectors,
    operations: Vec<Operation>,
    events: Vec<Event>,
}

struct Snapshot(Sectors);

impl Source for Snapshot {
    fn read(&self, first: u32, into: &mut [u8]) -> io::Result<()> {
        let start = first as usize * PAGE_SIZE;
        for (at, sector) in into.chunks_mut(SECTOR).enumerate() {
            sector.fill(self.0[start / SECTOR + at]);
        }
        Ok(())
    }

    fn data_runs(&self, first: u32, end: u32) -> Vec<Range<u32>> {
        let is_data = |page: &u32| page_of(&self.0, *page).iter().any(|byte| *byte != 0);
        (first..end).filter(is_data).map(|page| page..page + 1).collect()
    }
}

fn page_of(sectors: &[u8], page: u32) -> &[u8] {
    &sectors[page as usize * (PAGE_SIZE / SECTOR)..][..PAGE_SIZE / SECTOR]
}

impl Life {
    /// A disk whose pages all come from a snapshot.
    pub(super) fn first(seed: u64) -> Life {
        let snapshot: Sectors = (0..SECTORS)
            .map(|sector| if sector / 24 % 3 == 1 { 0 } else { 1 + (sector % 50) as u8 })
            .collect();
        let mut ledger = LAYOUT.header().to_vec();
        ledger.resize(LAYOUT.file_bytes(), 0);
        let words = ledger.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        Life {
            seed,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            medium: (vec![0; LAYOUT.bytes as usize], words),
            content: snapshot.clone(),
            published: snapshot,
            operations: Vec::new(),
            events: Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.raw")
    }

    /// A disk as it is opened after a loss of power.
    fn open(&self, content: Vec<u8>, ledger: &[u64], published: &Sectors) -> (Disk, Arc<Recorder>) {
        let recorder = Recorder::new(content, ledger);
        let ledger = Ledger::over(Box::new(LedgerWords(recorder.clone())), LAYOUT);
        let map = disk::map_from(&self.path(), &ledger).unwrap();
        let base = Base { source: Arc::new(Snapshot(published.clone())), generation: Generation(0) };
        (Disk::over(Engine::new(Box::new(Content(recorder.clone())), map, ledger, Some(base))), recorder)
    }

    /// Does random things, and remembers what happened.
    pub(super) fn run(&mut self) {
        let (disk, recorder) = self.open(self.medium.0.clone(), &self.medium.1, &self.published);
        let mut seals = Vec::new();
        for number in 0..OPERATIONS {
            let operation = self.operation(seals.len());
            perform(&disk, &operation, &mut seals);
            recorder.done(number);
            self.operations.push(operation);
        }
        self.events = recorder.take_events();
    }

    fn operation(&mut self, seals: usize) -> Operation {
        let random = &mut self.random;
        // Small regions are written again and again, others once in a while.
        let area = if random.below(3) > 0 { SECTORS / 8 } else { SECTORS };
        let start = random.below(area);
        let sectors = start..(start + 1 + random.below([1, 8, 40][random.clone().below(3)])).min(SECTORS);
        let pages = start / 8..(start / 8 + 1 + random.below(6)).min(PAGES as usize);
        let how = [Zeroes::Hole, Zeroes::Allocated][random.below(2)];
        match random.below(30) {
            0..13 => Operation::Write { sectors, byte: 60 + random.below(190) as u8 },
            13..15 => Operation::Zero { sectors, how },
            15..17 => Operation::Trim { pages },
            17..21 => Operation::Flush,
            21..24 => Operation::Seal,
            24..27 if seals > 0 => Operation::Publish,
            _ => Operation::Hydrate { pages: pages.start as u32..pages.end as u32 },
        }
    }

    /// Opens what may be left after each event, and looks at it. Returns how often.
    pub(super) fn cut_at_every_event(&self) -> usize {
        let mut cuts = 0;
        let mut remains = Remains::new(self.medium.0.clone(), &self.medium.1);
        let mut known = Known::new(self);
        for (number, event) in self.events.iter().enumerate() {
            remains.follow(event);
            if let Event::Done(operation) = event {
                known.done(*operation);
            }
            for fate in [
                Fate::Lost,
                Fate::Kept,
                Fate::Torn(self.seed << 20 | number as u64),
                Fate::Torn(number as u64),
            ] {
                self.look(&remains, fate, &known, number);
                cuts += 1;
            }
        }
        cuts
    }

    fn look(&self, remains: &Remains, fate: Fate, known: &Known<'_>, event: usize) -> Sectors {
        let (content, ledger) = remains.found(fate);
        let (disk, _) = self.open(content, &ledger, &known.published);
        let found = read_all(&disk);
        let pending = disk.pending();
        let place = || format!("seed {}, event {event}, {fate:?}, in {:?}", self.seed, known.at_work());
        for (sector, byte) in found.iter().enumerate() {
            let allowed = &known.allowed[sector];
            assert!(
                allowed.contains(byte),
                "{}: sector {sector} has {byte}, not one of {allowed:?}",
                place()
            );
        }
        for page in 0..PAGES {
            let is_known = page_of(&found, page) == page_of(&known.published, page) || pending.contains(page);
            assert!(is_known, "{}: page {page} differs from the snapshot and is not known to", place());
        }
        found
    }

    /// The life after a loss of power at some moment of this one.
    pub(super) fn next(mut self) -> Life {
        let cut = self.random.below(self.events.len());
        let fate = Fate::Torn(self.random.below(1 << 30) as u64);
        let mut remains = Remains::new(self.medium.0.clone(), &self.medium.1);
        let mut known = Known::new(&self);
        for event in &self.events[..=cut] {
            remains.follow(event);
            if let Event::Done(operation) = event {
                known.done(*operation);
            }
        }
        let content = self.look(&remains, fate, &known, cut);
        let published = known.published.clone();
        drop(known);
        Life {
            medium: remains.found(fate),
            content,
            published,
            operations: Vec::new(),
            events: Vec::new(),
            ..self
        }
    }
}

fn perform(disk: &Disk, operation: &Operation, seals: &mut Vec<Sealed>) {
    let place = |sectors: &Range<usize>| ((sectors.start * SECTOR) as u64, (sectors.len() * SECTOR) as u64);
    match operation {
        Operation::Write { sectors, byte } => {
            disk.write_at(place(sectors).0, &vec![*byte; sectors.len() * SECTOR]).unwrap();
        }
        Operation::Zero { sectors, how } => {
            disk.write_zeroes(place(sectors).0, place(sectors).1, *how).unwrap()
        }
        Operation::Trim { pages } => {
            disk.trim((pages.start * PAGE_SIZE) as u64, (pages.len() * PAGE_SIZE) as u64).unwrap();
        }
        Operation::Flush => disk.flush().unwrap(),
        Operation::Seal => seals.push(disk.seal()),
        Operation::Publish => {
            let sealed = seals.remove(0);
            let mut page: Page = [0; PAGE_SIZE];
            for number in sealed.pages().iter() {
                sealed.read(number, &mut page).unwrap();
            }
            disk.published(sealed, Generation(1));
        }
        Operation::Hydrate { pages } => {
            disk.engine().hydrate(pages.clone(), |_| false).unwrap();
        }
    }
}

fn read_all(disk: &Disk) -> Sectors {
    let mut bytes = vec![0; LAYOUT.bytes as usize];
    disk.engine().read(0, &mut bytes).unwrap();
    let sectors = bytes.chunks(SECTOR);
    sectors.map(|sector| if sector.iter().all(|byte| *byte == sector[0]) { sector[0] } else { 255 }).collect()
}

/// What is known at a moment of what may be found.
struct Known<'a> {
    operations: &'a [Operation],
    next: usize,
    content: Sectors,
    /// Per sector: what it had at the last flush, and everything it was given since, also by the operation at work.
    allowed: Vec<Vec<u8>>,
    seals: Vec<Sectors>,
    published: Sectors,
}

impl<'a> Known<'a> {
    fn new(life: &'a Life) -> Known<'a> {
        let mut known = Known {
            operations: &life.operations,
            next: 0,
            content: life.content.clone(),
            allowed: life.content.iter().map(|byte| vec![*byte]).collect(),
            seals: Vec::new(),
            published: life.published.clone(),
        };
        known.begin();
        known
    }

    fn at_work(&self) -> Option<&Operation> {
        self.operations.get(self.next)
    }

    /// The next operation begins.
    fn begin(&mut self) {
        match self.operations.get(self.next).cloned() {
            Some(Operation::Write { sectors, byte }) => self.give(sectors, byte),
            Some(Operation::Zero { sectors, .. }) => self.give(sectors, 0),
            Some(Operation::Trim { pages }) => self.give(pages.start * 8..pages.end * 8, 0),
            Some(Operation::Seal) => self.seals.push(self.content.clone()),
            // The snapshot is published before the disk is told.
            Some(Operation::Publish) => self.published = self.seals.remove(0),
            Some(Operation::Flush | Operation::Hydrate { .. }) | None => {}
        }
    }

    fn give(&mut self, sectors: Range<usize>, byte: u8) {
        for sector in sectors {
            self.content[sector] = byte;
            self.allowed[sector].push(byte);
        }
    }

    fn done(&mut self, operation: usize) {
        assert_eq!(operation, self.next);
        if let Operation::Flush = self.operations[operation] {
            self.allowed = self.content.iter().map(|byte| vec![*byte]).collect();
        }
        self.next += 1;
        self.begin();
    }
}
