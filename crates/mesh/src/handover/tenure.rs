//! What one node knows of who may run one machine, and what it does about it.

use serde::{Deserialize, Serialize};
use watari_types::{Epoch, NodeId};

/// What a node has written down about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// At which epoch
    pub epoch: Epoch,
    /// it may run there.
    pub standing: Standing,
    /// The highest epoch at which this node has said that it will not take the machine.
    pub refused: Epoch,
}

impl Record {
    /// The highest epoch that this node has heard of.
    pub fn highest(&self) -> Epoch {
        self.epoch.max(self.refused)
    }
}

/// Where a machine may run, as far as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Here, at the record's epoch.
    Mine,
    /// It was offered to that node at the record's epoch, and whether that one took it is not known.
    Offering(NodeId),
    /// Not here: at that node, if it is known.
    Elsewhere(Option<NodeId>),
}

/// What a guest is doing on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// There is none.
    Absent,
    /// It runs, or is held for reasons of its own.
    Here,
    /// It is held for the sake of this protocol: it was offered, or is to come.
    Held,
}

/// What nodes say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Could the machine come, at that epoch?
    Prepare(Epoch),
    /// It could.
    Ready(Epoch),
    /// It could not, at this epoch or an earlier one. Says nothing of whether it has come.
    Decline(Epoch),
    /// Here is the rest: it is yours.
    Commit(Epoch),
    /// It runs here, at that epoch or a later one.
    Running(Epoch),
    /// It was not taken at that epoch, and will not be.
    Refuse(Epoch),
    /// What became of it?
    Ask(Epoch),
    /// It goes on where it was; what was prepared is not needed.
    Abort(Epoch),
}

impl Message {
    /// The epoch that it is about.
    pub fn epoch(&self) -> Epoch {
        match *self {
            Message::Prepare(epoch)
            | Message::Ready(epoch)
            | Message::Decline(epoch)
            | Message::Commit(epoch)
            | Message::Running(epoch)
            | Message::Refuse(epoch)
            | Message::Ask(epoch)
            | Message::Abort(epoch) => epoch,
        }
    }
}

/// To be done, in this order, each before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this down, durably.
    Persist(Record),
    /// Send this. It may be lost.
    Send(NodeId, Message),
    /// Hold the guest that runs here.
    Hold,
    /// Let the guest go on that is held here, at this epoch.
    GoOn(Epoch),
    /// Make room for a machine that is to come, and say with [`Tenure::prepared`] whether that is possible.
    Prepare,
    /// Load what came before the `Commit`, and say with [`Tenure::loaded`] whether that worked.
    Load,
    /// Give up what is held here, or was prepared.
    Discard,
}

/// A node that has heard of epochs further ahead than this is not believed: a machine must not run out of them.
const MOST_AHEAD: u64 = 1 << 20;

/// What a node is in the middle of, and forgets when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// Its guest runs while everything is brought to that node.
    Moving {
        to: NodeId,
        epoch: Epoch,
        is_ready: bool,
    },
    /// A machine is to come from that node.
    Awaiting {
        from: NodeId,
        epoch: Epoch,
        is_prepared: bool,
    },
    /// What came is being loaded.
    Loading {
        from: NodeId,
        epoch: Epoch,
    },
}

/// One machine's tenure, as one node has it.
#[derive(Clone, Debug)]
pub struct Tenure {
    me: NodeId,
    record: Record,
    doing: Doing,
}

impl Tenure {
    /// As it was written down; with a guest that lived on, if one did. What is to be done about it comes with it.
    pub fn restored(me: NodeId, record: Record, guest: Guest) -> (Tenure, Vec<Action>) {
        let tenure = Tenure { me, record, doing: Doing::Nothing };
        let actions = match (record.standing, guest) {
            // A guest that is held because it was to be offered goes on, if it was not.
            (Standing::Mine, Guest::Held) => vec![Action::GoOn(record.epoch)],
            (Standing::Offering(to), _) => vec![Action::Send(to, Message::Ask(record.epoch))],
            (Standing::Elsewhere(_), Guest::Held | Guest::Here) => vec![Action::Discard],
            _ => Vec::new(),
        };
        (tenure, actions)
    }

    /// The machine was activated here, at that epoch: that it may be run here was known before.
    pub fn activated(&mut self, epoch: Epoch) {
        if self.is_mine() {
            self.record.epoch = self.record.epoch.max(epoch);
        }
    }

    /// What is written down, or is about to be.
    pub fn record(&self) -> Record {
        self.record
    }

    /// Whether the machine may run here.
    pub fn is_mine(&self) -> bool {
        self.record.standing == Standing::Mine
    }

    fn persist(&mut self, epoch: Epoch, standing: Standing) -> Action {
        self.record = Record { epoch, standing, ..self.record };
        Action::Persist(self.record)
    }

    /// Begins to bring the machine to another node. Nothing happens if it is not here, or on its way already.
    pub fn offer(&mut self, to: NodeId) -> Vec<Action> {
        if !self.is_mine() || self.doing != Doing::Nothing {
            return Vec::new();
        }
        let epoch = self.record.highest().next();
        self.doing = Doing::Moving { to, epoch, is_ready: false };
        vec![Action::Send(to, Message::Prepare(epoch))]
    }

    /// Whether the other node is ready for the machine.
    pub fn is_ready(&self) -> bool {
        matches!(self.doing, Doing::Moving { is_ready: true, .. })
    }

    /// Whether a machine is to come from that node at that epoch, and room was made for it.
    pub fn awaits(&self, from: NodeId, epoch: Epoch) -> bool {
        self.doing == Doing::Awaiting { from, epoch, is_prepared: true }
    }

    /// The machine that is to come will be found here from now on, whether it does or not: it is not for this node to run before
    /// it has.
    pub fn makes_room(&mut self) -> Vec<Action> {
        match (self.doing, self.record.standing) {
            (Doing::Awaiting { from, .. }, Standing::Elsewhere(_)) => {
                vec![self.persist(self.record.epoch, Standing::Elsewhere(Some(from)))]
            }
            _ => Vec::new(),
        }
    }

    /// Everything is there but for what a held guest has: hand it over.
    pub fn hand_over(&mut self) -> Vec<Action> {
        let Doing::Moving { to, epoch, is_ready: true } = self.doing else { return Vec::new() };
        self.doing = Doing::Nothing;
        let offering = self.persist(epoch, Standing::Offering(to));
        vec![Action::Hold, offering, Action::Send(to, Message::Commit(epoch))]
    }

    /// Gives up bringing it there, while it still runs here; or waiting for it. After [`hand_over`](Self::hand_over) it is too
    /// late for that.
    pub fn abort(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Moving { to, epoch, .. } => vec![Action::Send(to, Message::Abort(epoch))],
            Doing::Awaiting { from, epoch, .. } => {
                let never = self.refuse(epoch);
                vec![Action::Discard, never, Action::Send(from, Message::Refuse(epoch))]
            }
            // What comes of it is about to be known.
            doing => {
                self.doing = doing;
                Vec::new()
            }
        }
    }

    /// Whether room was made for the machine that is to come.
    pub fn prepared(&mut self, could: bool) -> Vec<Action> {
        let Doing::Awaiting { from, epoch, is_prepared } = &mut self.doing else { return Vec::new() };
        let (from, epoch) = (*from, *epoch);
        if could {
            *is_prepared = true;
            return vec![Action::Send(from, Message::Ready(epoch))];
        }
        // Nothing was promised. At this epoch it may be asked again, when what was in the way is gone.
        self.doing = Doing::Nothing;
        vec![Action::Discard, Action::Send(from, Message::Decline(epoch))]
    }

    /// Whether what came was loaded, and could go on now.
    pub fn loaded(&mut self, could: bool) -> Vec<Action> {
        let Doing::Loading { from, epoch } = self.doing else { return Vec::new() };
        self.doing = Doing::Nothing;
        if could {
            let mine = self.persist(epoch, Standing::Mine);
            return vec![mine, Action::GoOn(epoch), Action::Send(from, Message::Running(epoch))];
        }
        let never = self.refuse(epoch);
        vec![Action::Discard, never, Action::Send(from, Message::Refuse(epoch))]
    }

    /// Writes down that the machine will not be taken at this epoch.
    fn refuse(&mut self, epoch: Epoch) -> Action {
        self.record.refused = self.record.refused.max(epoch);
        Action::Persist(self.record)
    }

    /// The connection to a node is there again, or it is time to ask again.
    pub fn remind(&self, node: NodeId) -> Vec<Action> {
        match self.record.standing {
            Standing::Offering(to) if to == node => vec![Action::Send(to, Message::Ask(self.record.epoch))],
            Standing::Mine => vec![Action::Send(node, Message::Running(self.record.epoch))],
            _ => Vec::new(),
        }
    }

    /// A person says that the machine is to run here, and nowhere else: the other node does not come back. `guest` is what is
    /// held here. Without one the machine may be started from a snapshot.
    pub fn take_back(&mut self, guest: Guest) -> Vec<Action> {
        if self.is_mine() {
            return Vec::new();
        }
        self.doing = Doing::Nothing;
        let epoch = self.record.highest().next();
        let mine = self.persist(epoch, Standing::Mine);
        match guest {
            Guest::Held => vec![mine, Action::GoOn(epoch)],
            Guest::Here | Guest::Absent => vec![mine],
        }
    }

    /// The machine was taken away here, by a person. It may come again.
    pub fn given_up(&mut self) -> Record {
        self.doing = Doing::Nothing;
        self.record.standing = Standing::Elsewhere(None);
        self.record
    }

    /// The other side says something.
    pub fn handle(&mut self, from: NodeId, message: Message) -> Vec<Action> {
        match message {
            Message::Prepare(epoch) => self.asked_to_prepare(from, epoch),
            Message::Ready(epoch) => self.other_is_ready(from, epoch),
            Message::Commit(epoch) => self.committed(from, epoch),
            Message::Running(epoch) => self.runs_there(from, epoch),
            Message::Decline(epoch) => self.declined(from, epoch),
            Message::Refuse(epoch) => self.refused(from, epoch),
            Message::Ask(epoch) => self.asked(from, epoch),
            Message::Abort(epoch) => match self.doing {
                Doing::Awaiting { from: who, epoch: which, .. } if (who, which) == (from, epoch) => {
                    self.doing = Doing::Nothing;
                    vec![Action::Discard]
                }
                _ => Vec::new(),
            },
        }
    }

    fn asked_to_prepare(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        // Who offers a machine has it: that is what became of it.
        let mut actions = match self.record.standing {
            Standing::Offering(to) if to == from && epoch > self.record.epoch => {
                self.runs_there(from, Epoch(epoch.0 - 1))
            }
            _ => Vec::new(),
        };
        let is_free = matches!(self.record.standing, Standing::Elsewhere(_)) && epoch > self.record.highest();
        let is_idle = match self.doing {
            Doing::Nothing => true,
            // What it waits for did not come, or the machine would not be offered at a later epoch.
            Doing::Awaiting { epoch: before, .. } => before < epoch,
            Doing::Moving { .. } | Doing::Loading { .. } => false,
        };
        match self.doing {
            _ if is_free && is_idle => {
                self.doing = Doing::Awaiting { from, epoch, is_prepared: false };
                actions.push(Action::Prepare);
            }
            // It is asked again because the answer was lost.
            Doing::Awaiting { from: who, epoch: which, is_prepared } if (who, which) == (from, epoch) => {
                actions.extend(is_prepared.then_some(Action::Send(from, Message::Ready(epoch))));
            }
            _ => actions.push(Action::Send(from, Message::Decline(self.record.highest().max(epoch)))),
        }
        actions
    }

    fn other_is_ready(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match &mut self.doing {
            Doing::Moving { to, epoch: which, is_ready } if (*to, *which) == (from, epoch) => {
                *is_ready = true;
                Vec::new()
            }
            // It was given up meanwhile.
            _ => vec![Action::Send(from, Message::Abort(epoch))],
        }
    }

    fn committed(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match self.doing {
            Doing::Awaiting { from: who, epoch: which, is_prepared: true }
                if (who, which) == (from, epoch) =>
            {
                self.doing = Doing::Loading { from, epoch };
                vec![Action::Load]
            }
            Doing::Loading { epoch: which, .. } if which == epoch => Vec::new(),
            // It comes twice, or after it was refused, or this node has died and lost what was prepared.
            _ => self.asked(from, epoch),
        }
    }

    /// Says what became of what was offered at an epoch. Unless it was taken, it will not be.
    fn asked(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match self.doing {
            Doing::Loading { epoch: which, .. } if which == epoch => return Vec::new(),
            Doing::Awaiting { epoch: which, .. } if which == epoch => return self.abort(),
            _ => {}
        }
        match self.record.standing {
            Standing::Mine if self.record.epoch >= epoch => {
                vec![Action::Send(from, Message::Running(self.record.epoch))]
            }
            // It was taken, and went on from here. At which epoch it runs where is not for this node to say.
            Standing::Offering(_) | Standing::Elsewhere(Some(_)) if self.record.epoch > epoch => {
                vec![Action::Send(from, Message::Running(epoch))]
            }
            _ => {
                let never = self.refuse(epoch);
                vec![never, Action::Send(from, Message::Refuse(epoch))]
            }
        }
    }

    fn runs_there(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match self.record.standing {
            // What was offered was taken, or has gone on from there.
            Standing::Offering(_) if epoch >= self.record.epoch => {
                vec![self.persist(epoch, Standing::Elsewhere(Some(from))), Action::Discard]
            }
            // A person has had it run there while this node was away. Of two who did the same, one gives way.
            Standing::Mine if (epoch, from) > (self.record.epoch, self.me) => {
                self.doing = Doing::Nothing;
                vec![self.persist(epoch, Standing::Elsewhere(Some(from))), Action::Hold]
            }
            // Here it runs at a later epoch: the other one has to hear of it.
            Standing::Mine => vec![Action::Send(from, Message::Running(self.record.epoch))],
            _ => Vec::new(),
        }
    }

    fn declined(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match self.doing {
            Doing::Moving { to, epoch: which, .. }
                if to == from && (which..=Epoch(which.0.saturating_add(MOST_AHEAD))).contains(&epoch) =>
            {
                self.doing = Doing::Nothing;
                // It is offered next at a later one than any that the other side has heard of. Not to remember that costs a
                // question.
                self.record.refused = self.record.refused.max(epoch);
            }
            _ => {}
        }
        Vec::new()
    }

    fn refused(&mut self, from: NodeId, epoch: Epoch) -> Vec<Action> {
        match self.record.standing {
            // The epoch that was offered is spent.
            Standing::Offering(to) if (to, self.record.epoch) == (from, epoch) => {
                let epoch = epoch.next();
                vec![self.persist(epoch, Standing::Mine), Action::GoOn(epoch)]
            }
            _ => self.declined(from, epoch),
        }
    }
}
