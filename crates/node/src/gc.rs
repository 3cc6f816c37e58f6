//! Histories that stay as small as is wanted: what policies do not keep expires, and what nothing needs is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use watari_keeper::home::MachineHome;
use watari_keeper::protocol::Progress;
use watari_keeper::record::MachineState;
use watari_store::{Collecting, Survey};
use watari_types::{Aged, ErrorReport, Generation, MachineId, MachineName, SnapshotId};

use crate::api::{Forgotten, GcRequest, GcResult};
use crate::create::now_unix_ms;
use crate::node::{Node, OnProgress, hold};
use crate::{Error, Result};

/// How long a collection waits for snapshots that are being made. What they may need is left to the next one.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often policies are applied, at least.
const ROUND: Duration = Duration::from_secs(60);
/// Collecting garbage takes at most this part of the time, beside what a round begins with,
const SHARE: u32 = 20;
/// and this one as long as there is more to be done than one collection does: a guest that works all the time would leave more
/// garbage than is collected.
const BEHIND_SHARE: u32 = 4;
/// So many new packs are merged though nothing expired.
const NEW_PACKS: usize = 64;

impl GcResult {
    /// Counts in what another collection did after this one.
    fn add(&mut self, later: GcResult) {
        *self = GcResult {
            freed_bytes: self.freed_bytes + later.freed_bytes,
            dry_run: later.dry_run,
            snapshots_expired: self.snapshots_expired + later.snapshots_expired,
            snapshots_removed: self.snapshots_removed + later.snapshots_removed,
            packs_removed: self.packs_removed + later.packs_removed,
            packs_written: self.packs_written + later.packs_written,
            waited_ms: self.waited_ms + later.waited_ms,
            ..later
        };
    }
}

/// Snapshots that policies do not keep.
type Expired = BTreeSet<(MachineId, Generation)>;

/// Snapshots that are in use though no ref may name them, each so many times.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<BTreeMap<SnapshotId, usize>>>);

/// Keeps a snapshot until it is dropped.
pub(crate) struct Pin {
    pins: Pins,
    id: SnapshotId,
}

impl Pins {
    pub(crate) fn pin(&self, id: SnapshotId) -> Pin {
        *hold(&self.0).entry(id).or_default() += 1;
        Pin { pins: self.clone(), id }
    }

    fn all(&self) -> Vec<SnapshotId> {
        hold(&self.0).keys().copied().collect()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = hold(&self.pins.0);
        let Some(count) = pins.get_mut(&self.id) else { return };
        *count -= 1;
        if *count == 0 {
            pins.remove(&self.id);
        }
    }
}

impl Node {
    /// Applies every machine's policy, then removes what nothing needs and merges small packs.
    pub(crate) fn gc(&self, request: &GcRequest, progress: OnProgress) -> Result<GcResult> {
        let mut all = GcResult::default();
        loop {
            let (done, goes_on) = self.collect_a_part(request, progress)?;
            all.add(done);
            if !goes_on {
                return Ok(all);
            }
        }
    }

    /// The same, but if much is to be merged only a part of it, so that the store does not grow much while it is. Whether
    /// there is more to do, and something came of this.
    fn collect_a_part(&self, request: &GcRequest, progress: OnProgress) -> Result<(GcResult, bool)> {
        progress(Progress { step: "applying policies".to_owned(), done: 0, total: 0 });
        let _alone = hold(&self.collecting);
        let (expired, left) = self.apply_policies(request.dry_run)?;
        let how = Collecting {
            also: &|| self.pins.all(),
            patience: PATIENCE,
            progress: &|step, done, total| progress(Progress { step: step.to_owned(), done, total }),
            without: &expired,
        };
        let done = if request.dry_run { self.store.collect_dry(&how)? } else { self.store.collect(&how)? };
        let result = GcResult {
            freed_bytes: done.freed_bytes(),
            dry_run: request.dry_run,
            snapshots_expired: expired.len() as u64,
            snapshots_removed: done.snapshots_removed,
            packs_removed: done.packs_removed,
            packs_written: done.packs_written,
            waited_ms: done.waited_ms,
            is_held_back: done.is_held_back,
            left: left.into_iter().chain(done.left).collect(),
        };
        let goes_on = done.is_part && done.packs_written > 0 && !done.is_held_back;
        Ok((result, goes_on))
    }

    /// Takes out of all histories what their policies do not keep, unless `dry`: which snapshots these are, and why others
    /// stay. A machine whose policy cannot be read keeps all it has.
    fn apply_policies(&self, dry: bool) -> Result<(Expired, Vec<String>)> {
        let (mut expired, mut left) = (Expired::new(), Vec::new());
        for name in self.home.machine_names()? {
            match self.expire(&name, dry) {
                Ok((machine, generations)) => {
                    expired.extend(generations.into_iter().map(|gone| (machine, gone)))
                }
                Err(error) => left.push(format!("{name}: {}", ErrorReport::chain(&error))),
            }
        }
        Ok((expired, left))
    }

    /// Takes out of the machine's history what its policy does not keep, unless `dry`; which snapshots these are.
    fn expire(&self, name: &MachineName, dry: bool) -> Result<(MachineId, BTreeSet<Generation>)> {
        let _busy = self.blocking_lock(name);
        let (machine, generations) = self.expired(name)?;
        if !dry {
            let refs = self.store.refs(machine);
            generations.iter().try_for_each(|generation| refs.remove(*generation).map(drop))?;
        }
        Ok((machine, generations))
    }

    /// The snapshots that the machine's policy does not keep.
    fn expired(&self, name: &MachineName) -> Result<(MachineId, BTreeSet<Generation>)> {
        let (home, file) = self.machine(name)?;
        let machine = file.config.id;
        if file.retention.is_empty() {
            return Ok((machine, BTreeSet::new()));
        }
        let survey = self.store.refs(machine).survey()?.whole()?;
        let held = held(&home, &survey)?;
        let mut aged = Vec::with_capacity(survey.snapshots.len());
        for (generation, id) in survey.snapshots {
            let created_unix_ms = self.store.snapshot(id)?.draft.created_unix_ms;
            aged.push(Aged { generation, created_unix_ms, is_held: held.contains(&id) });
        }
        Ok((machine, file.retention.expired(&aged, now_unix_ms())))
    }

    /// Takes a snapshot out of the machine's history. What it alone held is removed when garbage is collected.
    pub(crate) fn forget(&self, name: &MachineName, rev: &str) -> Result<Forgotten> {
        let (generation, id) = self.in_history(name, rev)?;
        let (home, file) = self.machine(name)?;
        let refs = self.store.refs(file.config.id);
        let survey = refs.survey()?;
        let refused =
            |problem: String, hint: String| Error::BadRevision { rev: rev.to_owned(), problem, hint };
        if let Some((tag, _)) = survey.tags.iter().find(|(_, of)| **of == id) {
            let hint = format!("`watari tag --remove {name}@{tag}` takes it away");
            return Err(refused(format!("has the tag {tag}"), hint));
        }
        if held(&home, &survey)?.contains(&id) {
            let hint = "it goes with the machine, or after the next snapshot".to_owned();
            return Err(refused(format!("is what {name} descends from now"), hint));
        }
        refs.remove(generation)?;
        Ok(Forgotten { name: name.clone(), generation, id })
    }

    /// Applies policies and collects garbage where that is worth it, for as long as the node is there.
    pub(crate) fn keep_house(self: &Arc<Self>) -> Result<()> {
        let node = Arc::downgrade(self);
        let thread = thread::Builder::new().name("housekeeping".to_owned()).spawn(move || keep_house(&node));
        thread.map(drop).map_err(Error::io("start a thread for", self.home.root()))
    }
}

/// The snapshots that stay whatever a policy says: tagged ones, and what the machine's present state descends from.
fn held(home: &MachineHome, survey: &Survey) -> Result<BTreeSet<SnapshotId>> {
    let state = MachineState::load(home)?;
    let present = survey.head.map(|head| head.id).into_iter().chain(state.base.map(|base| base.id));
    Ok(survey.tags.values().copied().chain(present).chain(state.resume_from).collect())
}

/// What is known from one round to the next.
struct House {
    /// When garbage may be collected again.
    rested: Instant,
    /// How many packs there were after the last collection; none before the first.
    packs: Option<usize>,
    /// Whether anything has expired since, or is left from it.
    has_expired: bool,
    /// Whether the last collection was one part of what there was to be done.
    is_behind: bool,
}

/// What came of a collection.
struct Collected {
    took: Duration,
    /// Packs that there are now.
    packs: usize,
    is_behind: bool,
    /// Whether all that had expired is gone.
    is_done: bool,
}

/// A round now and then. It may end at any instant with the process: what is half done is done next time.
fn keep_house(node: &Weak<Node>) {
    let mut house = House::new(Instant::now());
    loop {
        thread::sleep(house.pause(Instant::now()));
        let Some(node) = node.upgrade() else { return };
        if let Err(error) = house.round(&node) {
            tracing::warn!("garbage is not collected: {}", ErrorReport::chain(&error));
        }
    }
}

impl House {
    fn new(now: Instant) -> House {
        House { rested: now + ROUND, packs: None, has_expired: false, is_behind: false }
    }

    /// How long to wait for the next round: who is behind goes on as soon as there has been enough rest.
    fn pause(&self, now: Instant) -> Duration {
        if self.is_behind { self.rested.saturating_duration_since(now).min(ROUND) } else { ROUND }
    }

    /// Histories follow their policies at once; what that leaves over is removed when there has been enough rest.
    fn round(&mut self, node: &Node) -> Result<()> {
        let (expired, _) = node.apply_policies(false)?;
        self.has_expired |= !expired.is_empty();
        node.store.refresh()?;
        if !self.is_due(node.store.pack_count(), Instant::now()) {
            return Ok(());
        }
        let begun = Instant::now();
        let done = node.collect_a_part(&GcRequest::default(), &|_| ());
        let waited = done.as_ref().map_or(Duration::ZERO, |(done, _)| Duration::from_millis(done.waited_ms));
        let is_behind = done.as_ref().is_ok_and(|(_, goes_on)| *goes_on);
        let collected = Collected {
            took: begun.elapsed().saturating_sub(waited),
            packs: node.store.pack_count(),
            is_behind,
            is_done: done.as_ref().is_ok_and(|(done, _)| !done.is_held_back && !is_behind),
        };
        self.after(&collected, Instant::now());
        tracing::info!(?done, "garbage was collected");
        done.map(drop)
    }

    /// Whether garbage is to be collected now that there are so many packs.
    fn is_due(&self, packs: usize, now: Instant) -> bool {
        let has_new = self.packs.is_none_or(|before| packs >= before + NEW_PACKS);
        now >= self.rested && (self.has_expired || has_new)
    }

    fn after(&mut self, collected: &Collected, now: Instant) {
        let share = if collected.is_behind { BEHIND_SHARE } else { SHARE };
        self.rested = now + collected.took * share;
        self.packs = Some(collected.packs);
        self.has_expired = !collected.is_done;
        self.is_behind = collected.is_behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_pinned_as_long_as_anybody_uses_it() {
        let pins = Pins::default();
        let id = SnapshotId([1; 32]);
        let (one, other) = (pins.pin(id), pins.pin(id));
        drop(one);
        assert_eq!(pins.all(), [id]);
        drop(other);
        assert_eq!(pins.all(), []);
    }

    #[test]
    fn who_is_behind_goes_on_as_soon_as_he_has_rested_and_who_is_not_when_there_is_something_to_do() {
        let start = Instant::now();
        let mut house = House::new(start);
        assert_eq!(house.pause(start), ROUND);
        let now = start + ROUND;
        assert!(house.is_due(1, now));

        let took = Duration::from_secs(3);
        house.after(&Collected { took, packs: 10, is_behind: true, is_done: false }, now);
        assert_eq!(house.pause(now), took * BEHIND_SHARE);
        assert!(!house.is_due(10, now + took));
        let now = now + took * BEHIND_SHARE;
        assert_eq!(house.pause(now), Duration::ZERO);
        assert!(house.is_due(10, now));

        house.after(&Collected { took, packs: 10, is_behind: false, is_done: true }, now);
        assert_eq!(house.pause(now), ROUND);
        let now = now + took * SHARE;
        assert!(!house.is_due(10 + NEW_PACKS - 1, now), "nothing has expired, and little is new");
        assert!(house.is_due(10 + NEW_PACKS, now));
        house.has_expired = true;
        assert!(house.is_due(10, now));
    }

    #[test]
    fn policies_are_applied_every_minute_however_long_the_rest_is() {
        let now = Instant::now();
        let mut house = House::new(now);
        let took = ROUND;
        house.after(&Collected { took, packs: 10, is_behind: true, is_done: false }, now);
        assert_eq!(house.pause(now), ROUND);
        assert!(!house.is_due(10, now + ROUND));
    }
}
