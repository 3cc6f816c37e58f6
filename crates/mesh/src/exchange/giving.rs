//! What a giver does next.

use std::collections::VecDeque;
use std::ops::Range;

use watari_store::Sent;

use super::message::{Answer, Message, Offer};
use super::{MOST_LISTS, MOST_LOOSE, NAMES_AT_FIRST, NAMES_PER_LIST, Violation};

/// To be done, in this order, before anything else is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiveAction {
    /// Send this.
    Send(Message),
    /// Find out what is to be given to somebody who has this one of the offer's line, and say so with [`Giving::prepared`].
    Prepare(Option<u32>),
    /// Send the names of these pages.
    Name(Range<u32>),
    /// Send these pages, each with whether it may go as a change.
    Give(Vec<(u32, bool)>),
    /// Send the manifest.
    Manifest,
    /// It is over: the snapshot is there.
    End(Sent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until it is known what the other one has.
    Offered,
    /// Pages are named and given; first the whole ones.
    Giving,
    /// The other one makes them findable.
    Settling,
    /// Everything was named, and the manifest sent. What is wanted of the last lists is still given.
    Closing,
    Over,
}

/// One snapshot that is given to a node.
pub struct Giving {
    phase: Phase,
    line: u32,
    /// How many pages are whole, and how many there are.
    whole: u32,
    all: u32,
    /// The first page that was not named yet.
    next: u32,
    /// How many the next list may name.
    per_list: u32,
    /// What was named and not answered.
    named: VecDeque<Range<u32>>,
    /// Pages that were given since it was last settled.
    loose: u32,
    /// Pages that were asked about and need no more.
    done: u32,
}

impl Giving {
    /// Begins.
    pub fn new(offer: Offer) -> (Giving, Vec<GiveAction>) {
        let giving = Giving {
            phase: Phase::Offered,
            line: offer.line.len() as u32,
            whole: 0,
            all: 0,
            next: 0,
            per_list: NAMES_AT_FIRST,
            named: VecDeque::new(),
            loose: 0,
            done: 0,
        };
        (giving, vec![GiveAction::Send(Message::Offer(offer))])
    }

    /// How many pages are done with, of how many.
    pub fn progress(&self) -> (u32, u32) {
        (self.done, self.all)
    }

    /// There are so many whole pages, and so many in all.
    pub fn prepared(&mut self, whole: u32, all: u32) -> Vec<GiveAction> {
        (self.phase, self.whole, self.all) = (Phase::Giving, whole, all);
        self.go_on(Vec::new())
    }

    /// The other side said something.
    ///
    /// # Errors
    /// It may not say that now. Nothing more is to be sent.
    pub fn handle(&mut self, message: &Message) -> Result<Vec<GiveAction>, Violation> {
        match (self.phase, message) {
            (Phase::Offered, Message::Have(nearest)) if nearest.is_none_or(|at| at < self.line) => {
                Ok(vec![GiveAction::Prepare(*nearest)])
            }
            // It had the snapshot already.
            (Phase::Offered | Phase::Closing, Message::Done(sent)) => {
                self.phase = Phase::Over;
                Ok(vec![GiveAction::End(*sent)])
            }
            (Phase::Giving | Phase::Closing, Message::Want(answers)) => {
                let give = self.wanted(answers)?;
                Ok(self.go_on(give))
            }
            (Phase::Settling, Message::Settled) => {
                (self.phase, self.loose) = (Phase::Giving, 0);
                Ok(self.go_on(Vec::new()))
            }
            _ => Err(Violation("it says something out of turn")),
        }
    }

    fn wanted(&mut self, answers: &[Answer]) -> Result<Vec<GiveAction>, Violation> {
        let named = self.named.pop_front().ok_or(Violation("it answers what nobody asked"))?;
        if named.len() != answers.len() {
            return Err(Violation("it answers more or less than it was asked"));
        }
        self.done += named.len() as u32;
        let lacking = named.zip(answers).filter(|(_, answer)| **answer != Answer::Here);
        let give: Vec<_> = lacking.map(|(page, answer)| (page, *answer == Answer::HasBase)).collect();
        self.loose += give.len() as u32;
        Ok(if give.is_empty() { Vec::new() } else { vec![GiveAction::Give(give)] })
    }

    /// Names as many as may be on their way. What is whole comes first, and is settled before what are changes of it. The
    /// manifest follows the last names: it is long, and goes beside the last pages.
    fn go_on(&mut self, mut actions: Vec<GiveAction>) -> Vec<GiveAction> {
        if self.phase != Phase::Giving {
            return actions;
        }
        while self.next < self.all && !self.must_settle() && self.named.len() < MOST_LISTS {
            let end = if self.next < self.whole { self.whole } else { self.all };
            let list = self.next..end.min(self.next + self.per_list);
            self.next = list.end;
            self.per_list = NAMES_PER_LIST.min(self.per_list * 2);
            self.named.push_back(list.clone());
            actions.push(GiveAction::Name(list));
        }
        if self.next == self.all {
            self.phase = Phase::Closing;
            actions.push(GiveAction::Manifest);
        } else if self.must_settle() && self.named.is_empty() {
            self.phase = Phase::Settling;
            actions.push(GiveAction::Send(Message::Settle));
        }
        actions
    }

    /// Whether nothing more can be named before what was given is findable: of whole pages the next are changes, or there are
    /// very many.
    fn must_settle(&self) -> bool {
        let is_between = self.next == self.whole && (self.loose > 0 || !self.named.is_empty());
        is_between || self.loose >= MOST_LOOSE
    }
}
