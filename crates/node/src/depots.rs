//! Snapshots to depots and from them. A machine that comes from a depot and is not here yet becomes one of this node's,
//! with its identity: it is the same machine, elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use watari_depot::{Access, Address, Depot, Secret};
use watari_keeper::home::MachineHome;
use watari_keeper::protocol::Progress;
use watari_keeper::record::{MachineFile, MachineState, NetworkStart, Phase, Point};
use watari_store::{Parcel, SendProgress, Sent, Snapshot, Store, Survey};
use watari_types::{
    Generation, MachineConfig, MachineId, MachineName, Retention, Rev, RevTarget, SnapshotId,
};

use crate::api::{DepotRequest, PullRequest, Pulled, PushRequest, Pushed};
use crate::create::now_unix_ms;
use crate::node::{Node, OnProgress};
use crate::{Error, Result};

/// A machine in a depot.
struct Shelved {
    machine: MachineId,
    name: MachineName,
    survey: Survey,
}

/// Snapshots of a machine that came from elsewhere.
pub(crate) struct Arrived<'a> {
    pub(crate) machine: MachineId,
    /// By ascending generation, one at least.
    pub(crate) snapshots: &'a [(Generation, SnapshotId)],
    pub(crate) received: Sent,
}

/// A snapshot that is here, to be sent elsewhere.
pub(crate) struct Offered {
    pub(crate) machine: MachineId,
    /// What it is called here, or was where it is from.
    pub(crate) name: MachineName,
    pub(crate) generation: Generation,
    pub(crate) id: SnapshotId,
    pub(crate) survey: Survey,
}

/// The snapshot that a revision names: of a machine that lives here, or of one of which only snapshots are here.
pub(crate) fn offered_by(node: &Node, rev: &str) -> Result<Offered> {
    let found = match node.resolve(rev) {
        Ok(found) => found,
        Err(error) => {
            let shelves = shelves(&node.store)?;
            let Ok((shelved, snapshots)) = one_of(&shelves, rev) else { return Err(error) };
            let Some((generation, id)) = snapshots.last().copied() else { return Err(error) };
            let (machine, name) = (shelved.machine, shelved.name.clone());
            return Ok(Offered { machine, name, generation, id, survey: node.store.refs(machine).survey()? });
        }
    };
    let survey = node.store.refs(found.machine).survey()?;
    let snapshot = node.store.snapshot(found.id)?;
    let generation = survey.snapshots.iter().find(|(_, id)| *id == found.id);
    let generation = generation.map_or(snapshot.draft.generation, |(generation, _)| *generation);
    let name = found.name.unwrap_or(snapshot.draft.machine_name);
    Ok(Offered { machine: found.machine, name, generation, id: found.id, survey })
}

impl Node {
    /// Puts a snapshot into a depot: what is not there yet.
    pub(crate) fn push(&self, request: &PushRequest, progress: OnProgress) -> Result<Pushed> {
        if let Some(node) = self.node_meant(&request.depot)? {
            return self.push_to(request, node, progress);
        }
        // Before it is looked for, so that it does not go meanwhile.
        let _lease = self.store.lease()?;
        let found = offered_by(self, &request.rev)?;
        let address = Address::parse(&request.depot.address)?;
        tell(progress, "looking at the depot");
        let depot = self.open_depot(&request.depot, &address, Access::Write)?;
        let tags = tags_of(&found.survey, found.id);
        let generation = found.generation;
        let parcel = Parcel { machine: found.machine, generation, id: found.id, tags: &tags };
        let sent = self.store.send(&parcel, &depot, &|done| send_progress(progress, done))?;
        let refs = depot.refs(found.machine);
        if refs.head()?.is_none_or(|head| head.generation < generation) {
            refs.set_head(generation, found.id, &depot.lease()?)?;
        }
        Ok(Pushed {
            name: found.name,
            id: found.id,
            generation,
            depot: address.to_string(),
            pages_sent: sent.pages,
            bytes_sent: sent.bytes,
        })
    }

    /// Takes snapshots from a depot: what is not here yet.
    pub(crate) fn pull(&self, request: &PullRequest, progress: OnProgress) -> Result<Pulled> {
        if let Some(node) = self.node_meant(&request.depot)? {
            return self.pull_from(request, node, progress);
        }
        let address = Address::parse(&request.depot.address)?;
        tell(progress, "looking at the depot");
        let depot = self.open_depot(&request.depot, &address, Access::Read)?;
        let name = request.name.as_deref().map(str::parse::<MachineName>).transpose()?;
        let shelves = shelves(&depot)?;
        let (shelved, parcels) = match &request.rev {
            Some(rev) => one_of(&shelves, rev)?,
            None => all_of(&shelves, &address, name.as_ref())?,
        };
        let name = self.name_here(shelved.machine, &shelved.name, name)?;
        let _busy = self.blocking_lock(&name);
        let is_new = self.name_of(shelved.machine)?.is_none();
        if is_new {
            self.ensure_free(&name)?;
        }
        self.receive(shelved, &parcels, &depot, name, is_new, progress)
    }

    pub(crate) fn open_depot(
        &self,
        request: &DepotRequest,
        address: &Address,
        access: Access,
    ) -> Result<Store> {
        let secret = match (&request.passphrase, &request.identity) {
            (Some(_), Some(_)) => {
                return Err(Error::BadRequest(
                    "a depot is opened with a passphrase or an identity".to_owned(),
                ));
            }
            (Some(words), None) => Some(Secret::passphrase(words.clone())),
            (None, Some(text)) => Some(Secret::identities(text.clone())),
            (None, None) => None,
        };
        let nearby = self.home.remembered_packs();
        let depot =
            Depot { address, secret: secret.as_ref(), settings: &request.settings, nearby: Some(&nearby) };
        Ok(watari_depot::open(&depot, access)?)
    }

    /// What a machine from elsewhere is called here.
    pub(crate) fn name_here(
        &self,
        machine: MachineId,
        there: &MachineName,
        wanted: Option<MachineName>,
    ) -> Result<MachineName> {
        match (self.name_of(machine)?, wanted) {
            // A name may also say which of several is meant.
            (Some(here), Some(wanted)) if wanted != here && wanted != *there => {
                Err(Error::BadRequest(format!(
                    "that machine is here, as {here}: leave the name away to add to its history; \
                     `watari clone {here} {wanted}` makes another"
                )))
            }
            (Some(here), _) => Ok(here),
            (None, wanted) => Ok(wanted.unwrap_or_else(|| there.clone())),
        }
    }

    fn receive(
        &self,
        shelved: &Shelved,
        snapshots: &[(Generation, SnapshotId)],
        depot: &Store,
        name: MachineName,
        is_new: bool,
        progress: OnProgress,
    ) -> Result<Pulled> {
        let machine = shelved.machine;
        let _lease = self.store.lease()?;
        let mut received = Sent::default();
        for (generation, id) in snapshots {
            let tags = tags_of(&shelved.survey, *id);
            let parcel = Parcel { machine, generation: *generation, id: *id, tags: &tags };
            let sent = depot.send(&parcel, &self.store, &|done| send_progress(progress, done))?;
            received.pages += sent.pages;
            received.bytes += sent.bytes;
        }
        if snapshots.is_empty() {
            return Err(Error::BadRequest(format!("{} has no snapshot in the depot", shelved.name)));
        }
        self.settle_in(Arrived { machine, snapshots, received }, name, is_new)
    }

    /// Makes a machine of what has arrived, if it is new here.
    pub(crate) fn settle_in(&self, arrived: Arrived<'_>, name: MachineName, is_new: bool) -> Result<Pulled> {
        let Arrived { machine, snapshots, received } = arrived;
        let lease = self.store.lease()?;
        let mut signers = BTreeSet::new();
        for (_, id) in snapshots {
            signers.insert(self.store.snapshot(*id)?.node);
        }
        let Some((generation, id)) = snapshots.last().copied() else {
            return Err(Error::Internal("nothing has arrived".to_owned()));
        };
        if is_new {
            self.store.refs(machine).set_head(generation, id, &lease)?;
            let snapshot = self.store.snapshot(id)?;
            self.build(&name, |home| self.furnish(home, machine, &name, generation, &snapshot))?;
        }
        signers.retain(|node| !self.trusts(*node).unwrap_or(false));
        Ok(Pulled {
            name,
            id: machine,
            is_new,
            generation,
            snapshot: id,
            snapshots: snapshots.len() as u64,
            pages_received: received.pages,
            bytes_written: received.bytes,
            untrusted: signers.into_iter().collect(),
        })
    }

    /// What is written down about a machine that goes on here from a snapshot.
    fn furnish(
        &self,
        home: &MachineHome,
        machine: MachineId,
        name: &MachineName,
        generation: Generation,
        snapshot: &Snapshot,
    ) -> Result<(MachineFile, MachineState)> {
        let draft = &snapshot.draft;
        self.furnish_boot(home, &draft.config, &self.store.page_tables(snapshot.id)?)?;
        let state = MachineState {
            phase: if draft.has_memory { Phase::Suspended } else { Phase::Stopped },
            base: Some(Point { generation, id: snapshot.id }),
            resume_from: draft.has_memory.then_some(snapshot.id),
            network: NetworkStart::Same,
            ..MachineState::new()
        };
        let file = MachineFile {
            bridge: None,
            name: name.clone(),
            created_unix_ms: now_unix_ms(),
            origin: draft.origin.clone(),
            retention: Retention::default(),
            config: MachineConfig { id: machine, ..draft.config.clone() },
        };
        Ok((file, state))
    }
}

pub(crate) fn tell(progress: OnProgress, step: &str) {
    progress(Progress { step: step.to_owned(), done: 0, total: 0 });
}

fn send_progress(progress: OnProgress, sent: SendProgress) {
    progress(Progress { step: "sending pages".to_owned(), done: sent.pages_done, total: sent.pages_total });
}

pub(crate) fn tags_of(survey: &Survey, id: SnapshotId) -> Vec<String> {
    survey.tags.iter().filter(|(_, of)| **of == id).map(|(tag, _)| tag.clone()).collect()
}

/// The machines in a depot, each by the name it had when its newest snapshot was taken.
fn shelves(depot: &Store) -> Result<Vec<Shelved>> {
    let mut shelves = Vec::new();
    for machine in depot.machines()? {
        let survey = depot.refs(machine).survey()?;
        if let Some((_, newest)) = survey.snapshots.last() {
            let name = depot.snapshot(*newest)?.draft.machine_name;
            shelves.push(Shelved { machine, name, survey });
        }
    }
    Ok(shelves)
}

/// A machine in a depot and those of its snapshots that are wanted, by ascending generation.
type Wanted<'a> = (&'a Shelved, Vec<(Generation, SnapshotId)>);

/// All of the only machine there is, or of the one that is called so.
fn all_of<'a>(shelves: &'a [Shelved], address: &Address, name: Option<&MachineName>) -> Result<Wanted<'a>> {
    let named: Vec<&Shelved> = shelves.iter().filter(|shelved| Some(&shelved.name) == name).collect();
    let shelved = match (shelves, &named[..]) {
        ([only], _) => only,
        (_, [only]) => *only,
        ([], _) => return Err(Error::BadRequest(format!("there is no machine in {address}"))),
        (many, _) => {
            let names: Vec<&str> = many.iter().map(|shelved| shelved.name.as_str()).collect();
            return Err(Error::BadRequest(format!(
                "there are several machines in {address}: {}; say which",
                names.join(", ")
            )));
        }
    };
    Ok((shelved, shelved.survey.snapshots.clone()))
}

/// The snapshot that a revision names there.
fn one_of<'a>(shelves: &'a [Shelved], rev: &str) -> Result<Wanted<'a>> {
    let bad = |problem: &str| Error::BadRevision {
        rev: rev.to_owned(),
        problem: problem.to_owned(),
        hint: format!(
            "the depot has {}",
            shelves.iter().map(|shelved| shelved.name.as_str()).collect::<Vec<_>>().join(", ")
        ),
    };
    let matches = |shelved: &Shelved, generation: Generation, id: SnapshotId| match rev.parse::<Rev>() {
        Ok(Rev::At(name, RevTarget::Generation(wanted))) => shelved.name == name && generation == wanted,
        Ok(Rev::At(name, RevTarget::Tag(tag))) => {
            shelved.name == name && shelved.survey.tags.get(&tag) == Some(&id)
        }
        Ok(Rev::Bare(text)) => {
            let is_newest = shelved.survey.snapshots.last().is_some_and(|(_, newest)| *newest == id);
            shelved.name.as_str() == text && is_newest
                || text.len() >= 4 && id.to_string().starts_with(&text.to_ascii_lowercase())
        }
        Err(_) => false,
    };
    let mut found: BTreeMap<SnapshotId, Wanted<'a>> = BTreeMap::new();
    for shelved in shelves {
        for (generation, id) in &shelved.survey.snapshots {
            if matches(shelved, *generation, *id) {
                found.entry(*id).or_insert((shelved, vec![(*generation, *id)]));
            }
        }
    }
    let mut found = found.into_values();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(bad("is not in the depot")),
        (Some(_), Some(_)) => Err(bad("names several snapshots in the depot")),
    }
}
