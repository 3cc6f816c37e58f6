//! Both sides by the thousand: what they decide, with seeds for everything else. A failed test prints its seed;
//! `WATARI_SEED` repeats it, `WATARI_SEEDS` says how many are tried.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use watari_store::{PageFrame, Sent};
use watari_types::{Generation, MachineId, PageHash, SnapshotId};

use super::giving::{GiveAction, Giving};
use super::message::{Answer, Message, Offer};
use super::taking::{TakeAction, Taking};
use super::{MOST_LISTS, Violation};

fn hash(number: u32) -> PageHash {
    let mut name = [1; 32];
    name[..4].copy_from_slice(&number.to_le_bytes());
    PageHash(name)
}

/// What there is to give.
struct Goods {
    whole: u32,
    /// Each with what it is a change of.
    pages: Vec<(PageHash, Option<PageHash>)>,
    line: Vec<SnapshotId>,
}

impl Goods {
    fn random(random: &mut Rng) -> Goods {
        let (whole, changes) = (random.u32(0..200), random.u32(0..100));
        let mut pages: Vec<_> = (0..whole).map(|page| (hash(page), None)).collect();
        // Of a page that is given, too, of one that the other side may have, or of one that is nowhere.
        pages.extend((0..changes).map(|page| (hash(1000 + page), Some(hash(random.u32(0..whole + 20))))));
        Goods { whole, pages, line: (0..random.u8(1..5)).map(|id| SnapshotId([id; 32])).collect() }
    }

    fn offer(&self) -> Offer {
        let (machine, name) = (MachineId([1; 16]), "web".parse().unwrap());
        Offer { machine, name, generation: Generation(1), tags: Vec::new(), line: self.line.clone() }
    }
}

/// What the taker has, beyond one conversation.
#[derive(Default)]
struct Shelf {
    /// What can be found, each with whether it is whole.
    here: BTreeMap<PageHash, bool>,
    /// What was kept and is not settled.
    loose: BTreeMap<PageHash, bool>,
    snapshots: BTreeSet<SnapshotId>,
    kept: BTreeMap<PageHash, u32>,
}

impl Shelf {
    fn settle(&mut self) {
        self.here.append(&mut self.loose);
    }

    /// Whether it could be kept: what a change is a change of must be there.
    fn keep(&mut self, frame: &PageFrame, wanted: &BTreeSet<PageHash>) -> bool {
        for (index, name) in frame.names.iter().enumerate() {
            assert!(wanted.contains(name), "{name} was kept and not wanted");
            if frame.bases.get(index).is_some_and(|base| !self.here.contains_key(base)) {
                return false;
            }
            *self.kept.entry(*name).or_default() += 1;
            self.loose.insert(*name, frame.bases.is_empty());
        }
        true
    }
}

/// One conversation, until it is over, cut, or against the rules.
struct Talk<'a> {
    goods: &'a Goods,
    shelf: &'a mut Shelf,
    giving: Giving,
    taking: Taking,
    to_taker: VecDeque<Message>,
    to_giver: VecDeque<Message>,
    wanted: BTreeSet<PageHash>,
    /// Lists that have no answer yet.
    unanswered: usize,
    sent: u64,
    /// Something came that cannot be kept.
    is_refused: bool,
    over: bool,
}

impl<'a> Talk<'a> {
    fn new(goods: &'a Goods, shelf: &'a mut Shelf) -> Talk<'a> {
        let (giving, actions) = Giving::new(goods.offer());
        let mut talk = Talk {
            goods,
            shelf,
            giving,
            taking: Taking::default(),
            to_taker: VecDeque::new(),
            to_giver: VecDeque::new(),
            wanted: BTreeSet::new(),
            unanswered: 0,
            sent: 0,
            is_refused: false,
            over: false,
        };
        talk.give(actions);
        talk
    }

    fn give(&mut self, actions: Vec<GiveAction>) {
        for action in actions {
            match action {
                GiveAction::Send(message) => self.to_taker.push_back(message),
                GiveAction::Prepare(_) => {
                    let more = self.giving.prepared(self.goods.whole, self.goods.pages.len() as u32);
                    self.give(more);
                }
                GiveAction::Name(pages) => {
                    self.unanswered += 1;
                    assert!(self.unanswered <= MOST_LISTS);
                    let names = self.goods.pages[pages.start as usize..pages.end as usize].to_vec();
                    self.to_taker.push_back(Message::Names(names));
                }
                GiveAction::Give(pages) => {
                    for (page, as_change) in pages {
                        let (name, base) = self.goods.pages[page as usize];
                        let bases = base.filter(|_| as_change).into_iter().collect();
                        self.sent += 1;
                        let frame = PageFrame { names: vec![name], bases, compressed: Vec::new() };
                        self.to_taker.push_back(Message::Pages(frame));
                    }
                }
                GiveAction::Manifest => self.to_taker.push_back(Message::Manifest(Vec::new())),
                GiveAction::End(_) => self.over = true,
            }
        }
    }

    fn take(&mut self, actions: Vec<TakeAction>) {
        for action in actions {
            let more = match action {
                TakeAction::Send(message) => {
                    self.to_giver.push_back(message);
                    continue;
                }
                TakeAction::Find(offer) => {
                    let nearest = offer.line.iter().position(|id| self.shelf.snapshots.contains(id));
                    self.taking.found(nearest.map(|at| at as u32))
                }
                TakeAction::Look(names) => {
                    let here = &self.shelf.here;
                    let answers: Vec<_> = names
                        .iter()
                        .map(|(name, base)| match base {
                            _ if here.contains_key(name) => Answer::Here,
                            Some(base) if here.contains_key(base) => Answer::HasBase,
                            _ => Answer::Lacking,
                        })
                        .collect();
                    let lacking = names.iter().zip(&answers).filter(|(_, answer)| **answer != Answer::Here);
                    self.wanted.extend(lacking.map(|((name, _), _)| *name));
                    self.taking.looked(answers)
                }
                TakeAction::Keep(frame) => {
                    self.is_refused |= !self.shelf.keep(&frame, &self.wanted);
                    continue;
                }
                TakeAction::Settle => {
                    self.shelf.settle();
                    continue;
                }
                TakeAction::Complete(manifest) => {
                    self.shelf.settle();
                    if manifest.is_some() {
                        let missing = self.wanted.iter().find(|name| !self.shelf.here.contains_key(*name));
                        assert_eq!(missing, None, "it is complete, and something is missing");
                    }
                    self.shelf.snapshots.insert(self.goods.line[0]);
                    self.taking.completed(Sent::default())
                }
            };
            self.take(more);
        }
    }

    /// Pages come on ways of their own.
    fn next_for_taker(&mut self, random: &mut Rng) -> Option<Message> {
        let is_page = |message: &Message| matches!(message, Message::Pages(_));
        let pages = self.to_taker.iter().filter(|message| is_page(message)).count();
        let others = self.to_taker.len() - pages;
        let wants_page = others == 0 || pages > 0 && random.bool();
        let skip = if wants_page && pages > 0 { random.usize(0..pages) } else { 0 };
        let mut matching =
            self.to_taker.iter().enumerate().filter(|(_, message)| is_page(message) == wants_page);
        let (at, _) = matching.nth(skip)?;
        self.to_taker.remove(at)
    }

    /// Lets one of the two read a message, if there is one for it.
    fn step(&mut self, random: &mut Rng) -> Result<bool, Violation> {
        let mut turns = [true, false];
        random.shuffle(&mut turns);
        for of_taker in turns {
            if of_taker && let Some(message) = self.next_for_taker(random) {
                let actions = self.taking.handle(message)?;
                self.take(actions);
                return Ok(true);
            }
            if !of_taker && let Some(message) = self.to_giver.pop_front() {
                self.unanswered =
                    self.unanswered.saturating_sub(usize::from(matches!(message, Message::Want(_))));
                let actions = self.giving.handle(&message)?;
                self.give(actions);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn for_each_seed(run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seeds = match number("WATARI_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WATARI_SEEDS").unwrap_or(20_000),
    };
    for seed in seeds {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        if let Err(panic) = failed {
            eprintln!("repeat it with WATARI_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn however_often_it_is_cut_everything_arrives_and_nothing_that_was_settled_is_sent_again() {
    for_each_seed(|seed| {
        let mut random = Rng::with_seed(seed);
        let goods = Goods::random(&mut random);
        let mut shelf = Shelf::default();
        for _ in 0..random.u32(0..20) {
            shelf.here.insert(hash(random.u32(0..80)), true);
        }
        if random.bool() {
            shelf.snapshots.extend(goods.line.iter().skip(1).copied().filter(|_| random.bool()));
        }
        let (mut cuts, mut lost) = (random.u32(0..5), 0);
        loop {
            let (before, mut talk) = (shelf.here.clone(), Talk::new(&goods, &mut shelf));
            let cut_after = (cuts > 0).then(|| random.u32(0..300));
            let mut steps = 0;
            while cut_after != Some(steps) && talk.step(&mut random).expect("both keep to the rules") {
                steps += 1;
            }
            assert!(!talk.is_refused, "a change came before what it is a change of");
            let (is_over, sent) = (talk.over, talk.sent);
            let on_their_way = talk.to_taker.iter().filter(|m| matches!(m, Message::Pages(_))).count() as u64;
            assert!(is_over || cut_after.is_some(), "nobody says anything, and it is not over");
            let came = shelf.here.len() - before.len() + shelf.loose.len();
            assert_eq!(sent - on_their_way, came as u64, "something was sent that was there");
            if is_over {
                break;
            }
            cuts -= 1;
            // The taker may only have lost the connection, or its power.
            if random.bool() {
                shelf.settle();
            } else {
                lost += shelf.loose.len();
                shelf.loose.clear();
            }
        }
        assert!(shelf.snapshots.contains(&goods.line[0]));
        let again: u32 = shelf.kept.values().map(|times| times - 1).sum();
        assert!(again as usize <= lost, "{again} pages were kept again and {lost} lost");
        let missing = goods.pages.iter().find(|(name, _)| !shelf.here.contains_key(name));
        assert!(missing.is_none(), "{missing:?}");
    });
}

#[test]
fn whatever_one_side_says_the_other_one_keeps_only_what_it_wanted_and_ends() {
    for_each_seed(|seed| {
        let mut random = Rng::with_seed(seed);
        let goods = Goods::random(&mut random);
        let mut shelf = Shelf::default();
        let mut talk = Talk::new(&goods, &mut shelf);
        for _ in 0..400 {
            let queue = if random.bool() { &mut talk.to_taker } else { &mut talk.to_giver };
            match random.u8(0..40) {
                0 => drop(queue.pop_front()),
                1 => queue.extend(queue.front().cloned()),
                2 if queue.len() > 1 => queue.swap(0, 1),
                3 => queue.push_front(Message::Settle),
                4 => queue.push_front(Message::Manifest(Vec::new())),
                5 => queue.push_front(Message::Want(vec![Answer::Lacking; random.usize(0..9)])),
                6 => queue
                    .push_front(Message::Names(vec![(hash(random.u32(0..2000)), None); random.usize(0..9)])),
                7 => queue.push_front(Message::Have(Some(random.u32(0..9)))),
                8 => queue.push_front(Message::Done(Sent::default())),
                _ => {}
            }
            // What is answered is not what was asked.
            talk.unanswered = 0;
            match talk.step(&mut random) {
                Ok(true) if !talk.is_refused => {}
                _ => break,
            }
        }
    });
}
