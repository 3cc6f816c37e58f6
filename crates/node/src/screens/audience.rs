//! Who watches a machine, and who of them is in control.
//!
//! One at a time is. Whoever comes first is; when that one leaves nobody is, until somebody who may does something. Anyone who may can
//! take it at any time: it is for people who know of each other.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::watch;

use crate::node::hold;

/// A viewer, for as long as it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat(u64);

/// Who is in control, as one viewer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Control {
    Yours,
    Anothers,
    Nobodys,
}

/// Everybody who watches one machine.
#[derive(Default)]
pub(crate) struct Audience {
    seats: Mutex<Seats>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    /// Each with whether it may be in control.
    taken: BTreeMap<Seat, bool>,
    holder: Option<Seat>,
}

impl Audience {
    /// Somebody comes.
    pub(crate) fn enter(&self, may_control: bool) -> Seat {
        let mut seats = hold(&self.seats);
        let seat = Seat(seats.next);
        seats.next += 1;
        seats.taken.insert(seat, may_control);
        if may_control && seats.holder.is_none() {
            seats.holder = Some(seat);
        }
        self.changes.send_replace(());
        seat
    }

    /// Somebody goes. Returns whether that one was in control.
    pub(crate) fn leave(&self, seat: Seat) -> bool {
        let mut seats = hold(&self.seats);
        seats.taken.remove(&seat);
        let was_holder = seats.holder.take_if(|holder| *holder == seat).is_some();
        self.changes.send_replace(());
        was_holder
    }

    /// Puts somebody in control who may be. Returns whether that one was not before.
    pub(crate) fn take(&self, seat: Seat) -> bool {
        let mut seats = hold(&self.seats);
        if seats.taken.get(&seat) != Some(&true) || seats.holder == Some(seat) {
            return false;
        }
        seats.holder = Some(seat);
        self.changes.send_replace(());
        true
    }

    /// Whether what somebody does counts: that one is in control, or nobody is and it may be, and is from now on.
    pub(crate) fn may_act(&self, seat: Seat) -> bool {
        match self.control(seat) {
            Control::Yours => true,
            Control::Anothers => false,
            Control::Nobodys => self.take(seat),
        }
    }

    pub(crate) fn control(&self, seat: Seat) -> Control {
        match hold(&self.seats).holder {
            Some(holder) if holder == seat => Control::Yours,
            Some(_) => Control::Anothers,
            None => Control::Nobodys,
        }
    }

    /// How many watch.
    pub(crate) fn len(&self) -> usize {
        hold(&self.seats).taken.len()
    }

    /// Tells when any of this is otherwise.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_in_control_and_whoever_only_watches_never_is() {
        let audience = Audience::default();
        let watcher = audience.enter(false);
        assert!(!audience.may_act(watcher) && !audience.take(watcher));
        let (first, second) = (audience.enter(true), audience.enter(true));
        assert!(audience.may_act(first) && !audience.may_act(second));
        assert_eq!(audience.control(second), Control::Anothers);
        assert!(audience.take(second) && !audience.take(second));
        assert!(!audience.may_act(first) && !audience.leave(first));
        assert!(audience.leave(second));
        assert_eq!(audience.control(watcher), Control::Nobodys);
        assert!(!audience.may_act(watcher) && !audience.may_act(second), "who has left does nothing");
        let third = audience.enter(true);
        assert!(audience.may_act(third));
        assert_eq!(audience.len(), 2);
    }

    #[test]
    fn whoever_acts_when_nobody_is_in_control_is() {
        let audience = Audience::default();
        let (first, second) = (audience.enter(true), audience.enter(true));
        audience.leave(first);
        assert!(audience.may_act(second));
        assert_eq!(audience.control(second), Control::Yours);
    }
}
