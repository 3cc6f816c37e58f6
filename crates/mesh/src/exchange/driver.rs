//! Carries out what [`Giving`] and [`Taking`] decide, with stores and streams.

use watari_store::{Goods, Intake, Parcel, Sent, Store};
use watari_types::SnapshotId;

use super::giving::{GiveAction, Giving};
use super::link::Link;
use super::message::{Answer, Message, Offer};
use super::taking::{TakeAction, Taking};
use crate::Error;

/// Snapshots before the one that is given among which a taker finds one that it has.
const MOST_LINE: usize = 4096;

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages that the other side has by now, or had.
    pub pages_done: u64,
    /// Pages that it may lack.
    pub pages_total: u64,
    /// Bytes that were sent.
    pub bytes: u64,
}

/// What was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Pages that were sent.
    pub pages: u64,
    /// Bytes that were sent, all in all.
    pub bytes: u64,
}

/// Gives a snapshot to whoever is at the other end. Must not be called from an async task.
///
/// # Errors
/// The other side has what was settled, and its history is as it was; it may be tried again.
pub fn give(
    link: &mut Link,
    store: &Store,
    parcel: &Parcel<'_>,
    name: &watari_types::MachineName,
    progress: &dyn Fn(Progress),
) -> Result<Given, Error> {
    let _lease = store.lease()?;
    let line = store.ancestry(parcel.id, MOST_LINE)?;
    let Parcel { machine, generation, id, tags } = *parcel;
    let offer = Offer { machine, name: name.clone(), generation, tags: tags.to_vec(), line: line.clone() };
    let (giving, actions) = Giving::new(offer);
    let giver = Giver { link, store, id, line, giving, goods: None, pages: 0, progress };
    giver.run(actions).inspect_err(|error| refuse(link, error))
}

/// Tells the other side why it ends.
fn refuse(link: &mut Link, error: &Error) {
    if !matches!(error, Error::Cut(_) | Error::Refused(_)) {
        link.refuse(&error.report());
    }
}

struct Giver<'a> {
    link: &'a mut Link,
    store: &'a Store,
    id: SnapshotId,
    line: Vec<SnapshotId>,
    giving: Giving,
    goods: Option<Goods>,
    pages: u64,
    progress: &'a dyn Fn(Progress),
}

impl Giver<'_> {
    fn run(mut self, mut actions: Vec<GiveAction>) -> Result<Given, Error> {
        loop {
            let mut next = Vec::new();
            for action in actions {
                if let GiveAction::End(_) = action {
                    return Ok(Given { pages: self.pages, bytes: self.link.sent_bytes() });
                }
                next.extend(self.act(action)?);
            }
            self.report();
            actions = match next.is_empty() {
                true => {
                    let message = self.link.receive()?;
                    self.giving.handle(&message)?
                }
                false => next,
            };
        }
    }

    fn act(&mut self, action: GiveAction) -> Result<Vec<GiveAction>, Error> {
        match action {
            GiveAction::Send(message) => self.link.send(&message)?,
            GiveAction::Prepare(nearest) => {
                let nearest = nearest.and_then(|at| self.line.get(at as usize)).copied();
                let goods = self.store.goods(self.id, nearest)?;
                let actions = self.giving.prepared(goods.whole(), goods.len());
                self.goods = Some(goods);
                return Ok(actions);
            }
            GiveAction::Name(pages) => {
                let names =
                    self.goods.iter().flat_map(|goods| pages.clone().filter_map(|page| goods.page(page)));
                self.link.send(&Message::Names(names.collect()))?;
            }
            GiveAction::Give(pages) => self.give(&pages)?,
            GiveAction::Manifest => {
                let manifest = self.goods.as_ref().map(|goods| goods.manifest().to_vec());
                self.link.send(&Message::Manifest(manifest.unwrap_or_default()))?;
            }
            GiveAction::End(_) => {}
        }
        Ok(Vec::new())
    }

    fn give(&mut self, pages: &[(u32, bool)]) -> Result<(), Error> {
        let Some(goods) = &self.goods else { return Ok(()) };
        let numbers: Vec<u32> = pages.iter().map(|(page, _)| *page).collect();
        let as_change = |page: u32| pages.binary_search(&(page, true)).is_ok();
        let link = &mut *self.link;
        goods.frames(&numbers, &as_change, &mut |frame| link.send(&Message::Pages(frame)))?;
        self.pages += pages.len() as u64;
        Ok(())
    }

    fn report(&self) {
        let (done, all) = self.giving.progress();
        if all > 0 {
            let bytes = self.link.sent_bytes();
            (self.progress)(Progress { pages_done: done.into(), pages_total: all.into(), bytes });
        }
    }
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What it is.
    pub offer: Offer,
    /// How much it was.
    pub sent: Sent,
}

/// Takes a snapshot from whoever is at the other end, if `accept` finds no reason not to. Must not be called from an async
/// task.
///
/// # Errors
/// The machine's history is as it was; pages that came stay, and it may be tried again.
pub fn take(
    link: &mut Link,
    store: &Store,
    accept: &dyn Fn(&Offer) -> Result<(), watari_types::ErrorReport>,
) -> Result<Taken, Error> {
    let intake = Some(store.intake()?);
    let taker =
        Taker { link: &mut *link, intake, accept, taking: Taking::default(), offer: None, nearest: None };
    taker.run().inspect_err(|error| refuse(link, error))
}

struct Taker<'a> {
    link: &'a mut Link,
    /// Until it is completed.
    intake: Option<Intake>,
    accept: &'a dyn Fn(&Offer) -> Result<(), watari_types::ErrorReport>,
    taking: Taking,
    offer: Option<Offer>,
    /// The nearest snapshot that is here.
    nearest: Option<SnapshotId>,
}

impl Taker<'_> {
    fn run(mut self) -> Result<Taken, Error> {
        let mut actions = Vec::new();
        let mut sent = Sent::default();
        let ended = loop {
            let mut next = Vec::new();
            for action in actions {
                match self.act(action, &mut sent) {
                    Ok(actions) => next.extend(actions),
                    Err(error) => return Err(self.keep_what_came(error)),
                }
            }
            actions = next;
            if actions.is_empty() {
                if self.taking.is_over() {
                    break self.offer;
                }
                let handled = self.link.receive().and_then(|message| Ok(self.taking.handle(message)?));
                actions = match handled {
                    Ok(actions) => actions,
                    Err(error) => return Err(self.keep_what_came(error)),
                };
            }
        };
        ended.map(|offer| Taken { offer, sent }).ok_or(Error::Internal("an exchange ended before it began"))
    }

    /// So that it need not be sent again.
    fn keep_what_came(mut self, error: Error) -> Error {
        if let Some(intake) = &mut self.intake
            && let Err(failed) = intake.settle()
        {
            tracing::debug!("what came before a transfer ended is not kept: {failed}");
        }
        error
    }

    fn act(&mut self, action: TakeAction, sent: &mut Sent) -> Result<Vec<TakeAction>, Error> {
        let Some(intake) = &mut self.intake else {
            if let TakeAction::Send(message) = action {
                self.link.send(&message)?;
            }
            return Ok(Vec::new());
        };
        match action {
            TakeAction::Send(message) => self.link.send(&message)?,
            TakeAction::Find(offer) => {
                (self.accept)(&offer).map_err(Error::Unwanted)?;
                let nearest = intake.nearest(&parcel_of(&offer), &offer.line)?;
                self.nearest = nearest.map(|at| offer.line[at]);
                self.offer = Some(offer);
                return Ok(self.taking.found(nearest.map(|at| at as u32)));
            }
            TakeAction::Look(names) => {
                let answer = |(name, base): &(_, Option<_>)| match base {
                    _ if !intake.lacks(name) => Answer::Here,
                    Some(base) if !intake.lacks(base) => Answer::HasBase,
                    _ => Answer::Lacking,
                };
                return Ok(self.taking.looked(names.iter().map(answer).collect()));
            }
            TakeAction::Keep(frame) => intake.take(&frame)?,
            TakeAction::Settle => intake.settle()?,
            TakeAction::Complete(manifest) => {
                let (Some(intake), Some(offer)) = (self.intake.take(), &self.offer) else {
                    return Ok(Vec::new());
                };
                let parcel = parcel_of(offer);
                *sent = match manifest {
                    Some(manifest) => intake.complete(&parcel, manifest, self.nearest)?,
                    None => intake.refer(&parcel)?,
                };
                return Ok(self.taking.completed(*sent));
            }
        }
        Ok(Vec::new())
    }
}

fn parcel_of(offer: &Offer) -> Parcel<'_> {
    // An offer without a line is refused before.
    let id = offer.line.first().copied().unwrap_or(SnapshotId([0; 32]));
    Parcel { machine: offer.machine, generation: offer.generation, id, tags: &offer.tags }
}
