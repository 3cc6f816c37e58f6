//! What a taker does next.

use std::collections::HashSet;

use watari_store::{PageFrame, Sent};
use watari_types::PageHash;

use super::message::{Answer, Message, Offer};
use super::{MOST_LISTS, MOST_LOOSE, NAMES_PER_LIST, Violation};

/// To be done, in this order, before anything else is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeAction {
    /// Send this.
    Send(Message),
    /// Find the nearest of these that is here, and say so with [`Taking::found`].
    Find(Offer),
    /// Find out which of these pages are here, and say so with [`Taking::looked`].
    Look(Vec<(PageHash, Option<PageHash>)>),
    /// Check these pages and keep them.
    Keep(PageFrame),
    /// Make what was kept findable and durable.
    Settle,
    /// Everything was sent: make the snapshot one of the machine's, and say so with [`Taking::completed`]. Without a manifest
    /// it is here already.
    Complete(Option<Vec<u8>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Finding,
    Taking,
    Completing,
    Over,
}

/// One snapshot that comes from a node.
pub struct Taking {
    phase: Phase,
    /// Of the pages that were said to be lacking those that have not come.
    wanted: HashSet<PageHash>,
    /// The list that is being looked at.
    looking: Vec<(PageHash, Option<PageHash>)>,
    /// Whether it is to be settled once everything that is wanted has come: pages come on ways of their own, and may be later
    /// than what was said after them.
    is_to_settle: bool,
    /// What is to be completed once everything has come.
    manifest: Option<Vec<u8>>,
}

impl Default for Taking {
    fn default() -> Self {
        Taking {
            phase: Phase::Waiting,
            wanted: HashSet::new(),
            looking: Vec::new(),
            is_to_settle: false,
            manifest: None,
        }
    }
}

impl Taking {
    /// The other side said something.
    ///
    /// # Errors
    /// It may not say that now. It is to be told so, and nothing more is to be taken.
    pub fn handle(&mut self, message: Message) -> Result<Vec<TakeAction>, Violation> {
        let is_all_named = self.manifest.is_some();
        match (self.phase, message) {
            (Phase::Waiting, Message::Offer(offer)) if !offer.line.is_empty() => {
                self.phase = Phase::Finding;
                Ok(vec![TakeAction::Find(offer)])
            }
            (Phase::Taking, Message::Names(names)) if !is_all_named && !names.is_empty() => {
                // Before it names more it settles, and it waits for answers after so many lists.
                let most = MOST_LOOSE as usize + (MOST_LISTS + 1) * NAMES_PER_LIST as usize;
                if self.wanted.len() + names.len() > most {
                    return Err(Violation("it names more than it gives"));
                }
                self.looking = names.clone();
                Ok(vec![TakeAction::Look(names)])
            }
            (Phase::Taking, Message::Pages(frame)) => {
                match frame.names.iter().all(|name| self.wanted.remove(name)) {
                    true => Ok([vec![TakeAction::Keep(frame)], self.go_on_if_all_came()].concat()),
                    false => Err(Violation("it sends pages that nobody wants")),
                }
            }
            (Phase::Taking, Message::Settle) if !self.is_to_settle && !is_all_named => {
                self.is_to_settle = true;
                Ok(self.go_on_if_all_came())
            }
            (Phase::Taking, Message::Manifest(manifest)) if !self.is_to_settle && !is_all_named => {
                self.manifest = Some(manifest);
                Ok(self.go_on_if_all_came())
            }
            _ => Err(Violation("it says something out of turn")),
        }
    }

    fn go_on_if_all_came(&mut self) -> Vec<TakeAction> {
        if !self.wanted.is_empty() {
            return Vec::new();
        }
        if std::mem::take(&mut self.is_to_settle) {
            return vec![TakeAction::Settle, TakeAction::Send(Message::Settled)];
        }
        let Some(manifest) = self.manifest.take() else { return Vec::new() };
        self.phase = Phase::Completing;
        vec![TakeAction::Complete(Some(manifest))]
    }

    /// That one of the offer's line is the nearest that is here.
    pub fn found(&mut self, nearest: Option<u32>) -> Vec<TakeAction> {
        if nearest == Some(0) {
            self.phase = Phase::Completing;
            return vec![TakeAction::Complete(None)];
        }
        self.phase = Phase::Taking;
        vec![TakeAction::Send(Message::Have(nearest))]
    }

    /// That is how it is with the pages that were to be looked at.
    pub fn looked(&mut self, mut answers: Vec<Answer>) -> Vec<TakeAction> {
        for ((name, _), answer) in std::mem::take(&mut self.looking).into_iter().zip(&mut answers) {
            // One that is named twice is sent once.
            if *answer != Answer::Here && !self.wanted.insert(name) {
                *answer = Answer::Here;
            }
        }
        vec![TakeAction::Send(Message::Want(answers))]
    }

    /// The snapshot is here now.
    pub fn completed(&mut self, sent: Sent) -> Vec<TakeAction> {
        self.phase = Phase::Over;
        vec![TakeAction::Send(Message::Done(sent))]
    }

    /// Whether it ended well.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }
}
