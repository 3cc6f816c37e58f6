//! Any sequence of operations gives what a vector of bytes would, and the marks say so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use common::{Memory, memory, pattern, place};
use proptest::prelude::*;
use watari_disk::{Base, Disk, Sealed, Zeroes};
use watari_types::{Generation, PAGE_SIZE, PageSet};

const PAGES: u32 = 200;
const BYTES: u64 = PAGES as u64 * PAGE_SIZE as u64;

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: u64, byte: u8 },
    Zero { at: u64, len: u64, how: Zeroes },
    Trim { at: u64, len: u64 },
    Read { at: u64, len: u64 },
    Scan,
    Seal,
    ReadSealed { seal: usize, skip: usize, count: usize },
    Release { seal: usize },
    Publish,
    Reopen,
    Hydrate,
    GoBack { to: usize },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Offsets and lengths at all granularities: bytes, sectors, pages, words.
    let unit = prop::sample::select(vec![1u64, 512, 4096, 65_536]);
    let bytes = (unit, 0..BYTES, 1..200_000u64).prop_map(|(unit, at, len)| {
        let at = at / unit * unit;
        (at, (len.div_ceil(unit) * unit).min(BYTES - at))
    });
    let how = prop::sample::select(vec![Zeroes::Hole, Zeroes::Allocated]);
    let op = prop_oneof![
        8 => (bytes.clone(), 1u8..).prop_map(|((at, len), byte)| Op::Write { at, len, byte }),
        2 => (bytes.clone(), how).prop_map(|((at, len), how)| Op::Zero { at, len, how }),
        2 => bytes.clone().prop_map(|(at, len)| Op::Trim { at, len }),
        3 => bytes.prop_map(|(at, len)| Op::Read { at, len }),
        1 => Just(Op::Scan),
        2 => Just(Op::Seal),
        4 => (0usize..3, 0usize..50, 1usize..100)
            .prop_map(|(seal, skip, count)| Op::ReadSealed { seal, skip, count }),
        1 => (0usize..3).prop_map(|seal| Op::Release { seal }),
        1 => Just(Op::Publish),
        1 => Just(Op::Reopen),
        1 => Just(Op::Hydrate),
        1 => (0usize..4).prop_map(|to| Op::GoBack { to }),
    ];
    prop::collection::vec(op, 1..60)
}

/// What is sealed, and the content the whole disk had then.
struct OpenSeal {
    sealed: Sealed,
    content: Vec<u8>,
    unread: BTreeSet<u32>,
    /// Pages changed since, whether scanned since or not.
    changed_since: BTreeSet<u32>,
}

/// What was published, as a store has it.
struct Snapshot {
    generation: Generation,
    content: Vec<u8>,
    /// Pages that are not as in the one before.
    differing: BTreeSet<u32>,
    /// Pages changed since it.
    changed_since: BTreeSet<u32>,
}

struct Model {
    path: PathBuf,
    source: Vec<u8>,
    disk: Option<Disk>,
    content: Vec<u8>,
    /// The snapshots that led to the newest one, from what the disk began with on.
    line: Vec<Snapshot>,
    newest: u64,
    /// The snapshot that the disk was opened with.
    opened_at: Generation,
    unpublished: BTreeSet<u32>,
    written: BTreeSet<u32>,
    seals: Vec<OpenSeal>,
}

fn pages(at: u64, len: u64) -> std::ops::Range<u32> {
    (at / PAGE_SIZE as u64) as u32..(at + len).div_ceil(PAGE_SIZE as u64) as u32
}

fn differing(one: &[u8], other: &[u8]) -> BTreeSet<u32> {
    (0..PAGES).filter(|number| page(one, *number) != page(other, *number)).collect()
}

fn page(content: &[u8], page: u32) -> &[u8] {
    &content[page as usize * PAGE_SIZE..][..PAGE_SIZE]
}

impl Model {
    fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    fn set(&mut self, at: u64, len: u64, byte: u8) {
        self.content[at as usize..(at + len) as usize].fill(byte);
        for page in pages(at, len) {
            self.written.insert(page);
            self.unpublished.insert(page);
            let seals = self.seals.iter_mut().map(|seal| &mut seal.changed_since);
            let snapshots = self.line.iter_mut().map(|snapshot| &mut snapshot.changed_since);
            seals.chain(snapshots).for_each(|changed| changed.extend([page]));
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write { at, len, byte } => {
                self.disk().write_at(at, &vec![byte; len as usize]).unwrap();
                self.set(at, len, byte);
            }
            Op::Zero { at, len, how } => {
                self.disk().write_zeroes(at, len, how).unwrap();
                self.set(at, len, 0);
            }
            Op::Trim { at, len } => {
                self.disk().trim(at, len).unwrap();
                let whole = at.div_ceil(4096) * 4096..(at + len) / 4096 * 4096;
                if !whole.is_empty() {
                    self.set(whole.start, whole.end - whole.start, 0);
                }
            }
            Op::Read { at, len } => {
                let mut got = vec![0xee; len as usize];
                self.disk().read_at(at, &mut got).unwrap();
                assert!(got == self.content[at as usize..(at + len) as usize], "read {len} at {at}");
            }
            Op::Scan => {
                let found = self.disk().scan();
                self.check_found(&found);
            }
            Op::Seal => {
                let sealed = self.disk().seal();
                self.check_found(sealed.pages());
                let unread = sealed.pages().iter().collect();
                let content = self.content.clone();
                self.seals.push(OpenSeal { sealed, content, unread, changed_since: BTreeSet::new() });
            }
            Op::ReadSealed { seal, skip, count } => {
                if let Some(seal) = self.seals.get_mut(seal) {
                    let some: Vec<u32> = seal.unread.iter().copied().skip(skip).take(count).collect();
                    read_sealed(seal, some);
                }
            }
            Op::Release { seal } => {
                if seal < self.seals.len() {
                    self.seals.remove(seal);
                }
            }
            Op::Publish => self.publish(),
            Op::Reopen => {
                self.seals.clear();
                self.disk = None;
                let base = self.base();
                self.disk = Some(Disk::open(&self.path, Some(base)).unwrap());
                let unpublished: BTreeSet<u32> = self.disk().pending().iter().collect();
                assert!(self.unpublished.is_superset(&unpublished), "unpublished though never written");
                self.check_unpublished(&unpublished);
                self.written.clear();
            }
            Op::GoBack { to } => self.go_back(to),
            Op::Hydrate => {
                self.disk().hydrate().wait();
                assert_eq!(self.disk().absent(), 0);
            }
        }
    }

    /// A scan finds what was written, and may leave out pages whose content did not change.
    fn check_found(&mut self, found: &PageSet) {
        let found: BTreeSet<u32> = found.iter().collect();
        assert!(self.written.is_superset(&found), "found though not written");
        for missed in self.written.difference(&found) {
            assert!(page(&self.content, *missed).iter().all(|byte| *byte == 0), "page {missed} was missed");
        }
        self.written.clear();
        let pending: BTreeSet<u32> = self.disk().pending().iter().collect();
        assert!(pending.is_superset(&found), "found and not pending");
        self.check_unpublished(&pending);
    }

    /// Nothing that differs from the newest snapshot may be missing from what is unpublished.
    fn check_unpublished(&self, unpublished: &BTreeSet<u32>) {
        for number in (0..PAGES).filter(|number| !unpublished.contains(number)) {
            assert!(
                page(&self.content, number) == page(&self.last().content, number),
                "page {number} is forgotten"
            );
        }
        self.check_generations();
    }

    /// What is said to have changed since any snapshot holds everything that differs from it, and nothing that was
    /// left alone.
    fn check_generations(&self) {
        for snapshot in &self.line {
            let generation = snapshot.generation;
            let Some(found) = self.disk().changed_since(generation) else {
                assert!(generation < self.opened_at, "{generation} is forgotten");
                continue;
            };
            let found: BTreeSet<u32> = found.iter().collect();
            assert!(
                differing(&self.content, &snapshot.content).is_subset(&found),
                "missed since {generation}"
            );
            assert!(found.is_subset(&snapshot.changed_since), "left alone since {generation}");
        }
    }

    fn last(&self) -> &Snapshot {
        self.line.last().unwrap()
    }

    /// The line's newest snapshot as the store would give it.
    fn base(&mut self) -> Base {
        self.opened_at = self.last().generation;
        Base { source: Arc::new(Memory(self.source.clone())), generation: self.opened_at }
    }

    /// Takes the disk back to an older snapshot, or to the newest.
    fn go_back(&mut self, to: usize) {
        let to = to.min(self.line.len() - 1);
        let left_behind: BTreeSet<u32> =
            self.line.drain(to + 1..).flat_map(|snapshot| snapshot.differing).collect();
        (self.seals, self.disk) = (Vec::new(), None);
        let remains = Disk::revoke(&self.path, Some(&left_behind.into_iter().collect())).unwrap().unwrap();
        assert!(Disk::open(&self.path, None).is_err(), "a disk that was revoked is none");
        self.content = self.last().content.clone();
        self.source = self.content.clone();
        self.unpublished.clear();
        self.written.clear();
        let mut later = BTreeSet::new();
        for snapshot in self.line.iter_mut().rev() {
            snapshot.changed_since = later.clone();
            later.extend(&snapshot.differing);
        }
        let base = self.base();
        self.disk = Some(Disk::create_from(&self.path, remains, base).unwrap());
        self.check_generations();
    }

    fn publish(&mut self) {
        let Some(mut seal) = self.seals.pop() else { return };
        let unread = std::mem::take(&mut seal.unread).into_iter().collect();
        read_sealed(&mut seal, unread);
        self.newest += 1;
        let generation = Generation(self.newest);
        self.disk().published(seal.sealed, generation);
        self.unpublished = seal.changed_since.clone();
        let differing = differing(&seal.content, &self.last().content);
        self.line.push(Snapshot {
            generation,
            content: seal.content,
            differing,
            changed_since: seal.changed_since,
        });
        // An older seal is of an older snapshot now, which nobody would publish.
        self.seals.clear();
        let found: BTreeSet<u32> = self.disk().pending().iter().collect();
        assert!(self.unpublished.is_superset(&found), "published and still pending");
        self.check_generations();
    }
}

fn read_sealed(seal: &mut OpenSeal, numbers: Vec<u32>) {
    for number in numbers {
        let mut got = [0xee; PAGE_SIZE];
        seal.sealed.read(number, &mut got).unwrap();
        assert!(got == page(&seal.content, number), "sealed page {number}");
        assert!(seal.sealed.read(number, &mut got).is_err(), "a sealed page is read once");
        seal.unread.remove(&number);
    }
}

fn run(with_source: bool, ops: &[Op]) {
    let (_folder, path) = place();
    let source = if with_source { pattern(PAGES) } else { vec![0; BYTES as usize] };
    let disk = Disk::create(&path, BYTES, with_source.then(|| memory(&source).unwrap())).unwrap();
    let mut model = Model {
        path,
        disk: Some(disk),
        content: source.clone(),
        line: vec![Snapshot {
            generation: Generation(0),
            content: source.clone(),
            differing: BTreeSet::new(),
            changed_since: BTreeSet::new(),
        }],
        newest: 0,
        opened_at: Generation(0),
        source,
        unpublished: BTreeSet::new(),
        written: BTreeSet::new(),
        seals: Vec::new(),
    };
    for op in ops {
        model.apply(op);
    }
    for seal in 0..model.seals.len() {
        model.apply(&Op::ReadSealed { seal, skip: 0, count: usize::MAX });
    }
    model.apply(&Op::Scan);
    model.apply(&Op::Read { at: 0, len: BYTES });
    model.apply(&Op::Reopen);
    model.apply(&Op::Hydrate);
    model.apply(&Op::Read { at: 0, len: BYTES });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_behaves_like_a_vector_of_bytes(with_source: bool, ops in ops()) {
        run(with_source, &ops);
    }
}

#[test]
fn what_was_scanned_after_a_seal_stays_pending_when_the_seal_is_published() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, BYTES, None).unwrap();
    let write = |page: u64| disk.write_at(page * 4096, &[1; 4096]).unwrap();
    write(1);
    assert_eq!(disk.scan().iter().collect::<Vec<_>>(), [1]);
    write(2);
    let sealed = disk.seal();
    write(3);
    disk.scan();
    write(4);
    write(2);
    assert_eq!(sealed.pages().iter().collect::<Vec<_>>(), [2]);
    disk.published(sealed, Generation(1));
    assert_eq!(disk.pending().iter().collect::<Vec<_>>(), [3]);
    assert_eq!(disk.scan().iter().collect::<Vec<_>>(), [2, 4]);
    drop(disk);
    let disk = Disk::open(&path, None).unwrap();
    assert_eq!(disk.pending().iter().collect::<Vec<_>>(), [2, 3, 4]);
    assert!(disk.scan().is_empty());
}

#[test]
fn two_seals_of_the_same_page_each_have_their_own_content() {
    let (_folder, path) = place();
    let disk = Disk::create(&path, BYTES, None).unwrap();
    let mut seals = BTreeMap::new();
    for byte in 1u8..6 {
        disk.write_at(8192, &[byte; 4096]).unwrap();
        seals.insert(byte, disk.seal());
    }
    disk.write_at(8192 + 100, &[9; 7]).unwrap();
    for (byte, sealed) in seals {
        let mut got = [0; PAGE_SIZE];
        sealed.read(2, &mut got).unwrap();
        assert_eq!(got, [byte; PAGE_SIZE]);
    }
}
