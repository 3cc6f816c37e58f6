//! Histories: what a revision names, what a machine's past holds.

use std::collections::{BTreeSet, HashMap};

use watari_keeper::costs::{self, Cost};
use watari_store::{Refs, Snapshot, Survey};
use watari_types::{ErrorReport, Generation, MachineId, MachineName, Rev, RevTarget, SnapshotId};

use crate::api::{RegionInfo, Shown, SnapshotInfo, SnapshotList, TagRequest, Tagged};
use crate::node::Node;
use crate::{Error, Result};

/// Shorter beginnings of an id name too much.
const SHORTEST_PREFIX: usize = 4;

/// A snapshot, and the machine in whose history it was found.
pub(crate) struct Resolved {
    pub(crate) id: SnapshotId,
    pub(crate) machine: MachineId,
    /// That machine's name, if it is still there.
    pub(crate) name: Option<MachineName>,
}

impl Node {
    /// The snapshot that `rev` names.
    ///
    /// A machine's bare name is the snapshot its present state descends from, or else its newest.
    pub(crate) fn resolve(&self, rev: &str) -> Result<Resolved> {
        match rev.parse::<Rev>()? {
            Rev::At(name, target) => self.resolve_at(rev, name, &target),
            Rev::Bare(text) => match text.parse::<MachineName>() {
                Ok(name) if self.home.machine(&name).config().exists() => self.resolve_name(name),
                name => self.resolve_prefix(&text, name.ok()),
            },
        }
    }

    fn resolve_at(&self, rev: &str, name: MachineName, target: &RevTarget) -> Result<Resolved> {
        let machine = self.machine(&name)?.1.config.id;
        let refs = self.store.refs(machine);
        let found = match target {
            RevTarget::Generation(generation) => refs.get(*generation)?,
            RevTarget::Tag(tag) => refs.tagged(tag)?,
        };
        let id = found.ok_or_else(|| Error::BadRevision {
            rev: rev.to_owned(),
            problem: format!("{name} has no such snapshot"),
            hint: format!("`watari log {name}` shows its snapshots"),
        })?;
        Ok(Resolved { id, machine, name: Some(name) })
    }

    fn resolve_name(&self, name: MachineName) -> Result<Resolved> {
        let machine = self.machine(&name)?.1.config.id;
        let id = self.present(&self.store.refs(machine))?.ok_or_else(|| Error::BadRevision {
            rev: name.to_string(),
            problem: "the machine has no snapshot yet".to_owned(),
            hint: format!("`watari checkpoint {name}` makes one while it runs"),
        })?;
        Ok(Resolved { id, machine, name: Some(name) })
    }

    fn present(&self, refs: &Refs) -> Result<Option<SnapshotId>> {
        if let Some(head) = refs.head()? {
            return Ok(Some(head.id));
        }
        Ok(refs.survey()?.snapshots.last().map(|(_, id)| *id))
    }

    fn resolve_prefix(&self, text: &str, name: Option<MachineName>) -> Result<Resolved> {
        let is_prefix = text.len() >= SHORTEST_PREFIX && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_prefix {
            return Err(match name {
                Some(name) => Error::UnknownMachine(name),
                None => watari_types::RevError(text.to_owned()).into(),
            });
        }
        let found = self.store.find_snapshot(&text.to_ascii_lowercase())?;
        let ids: BTreeSet<SnapshotId> = found.iter().map(|(_, id)| *id).collect();
        match ids.into_iter().collect::<Vec<_>>()[..] {
            [id] => self.owner(id, found.into_iter().map(|(machine, _)| machine).collect()),
            [] => Err(Error::BadRevision {
                rev: text.to_owned(),
                problem: "is neither a machine nor the beginning of a snapshot's id".to_owned(),
                hint: "`watari list` shows the machines, `watari log NAME` their snapshots".to_owned(),
            }),
            ref many => Err(Error::BadRevision {
                rev: text.to_owned(),
                problem: format!("{} snapshots begin so", many.len()),
                hint: format!(
                    "write more of one of {}",
                    many.iter()
                        .take(8)
                        .map(|id| id.to_string()[..16].to_owned())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            }),
        }
    }

    /// A snapshot in several histories belongs to the machine that took it, if that is still there.
    fn owner(&self, id: SnapshotId, machines: Vec<MachineId>) -> Result<Resolved> {
        let taker = self.store.snapshot(id)?.draft.config.id;
        let named: Vec<_> = self.names_of(&machines)?;
        let best = named
            .iter()
            .find(|(machine, _)| *machine == taker)
            .or(named.first())
            .map(|(machine, name)| (*machine, Some(name.clone())));
        let (machine, name) = best.unwrap_or((taker, None));
        Ok(Resolved { id, machine, name })
    }

    fn names_of(&self, machines: &[MachineId]) -> Result<Vec<(MachineId, MachineName)>> {
        let mut named = Vec::new();
        for name in self.home.machine_names()? {
            if let Ok((_, file)) = self.machine(&name)
                && machines.contains(&file.config.id)
            {
                named.push((file.config.id, name));
            }
        }
        Ok(named)
    }

    /// The machine of that id, if it is still there.
    pub(crate) fn name_of(&self, machine: MachineId) -> Result<Option<MachineName>> {
        Ok(self.names_of(&[machine])?.pop().map(|(_, name)| name))
    }

    /// What `rev` names, for a person to look at.
    pub(crate) fn show(&self, rev: &str) -> Result<Shown> {
        if let Ok(Rev::Bare(text)) = rev.parse()
            && let Ok(name) = text.parse::<MachineName>()
            && let Ok((_, file)) = self.machine(&name)
            && self.present(&self.store.refs(file.config.id))?.is_none()
        {
            return Ok(Shown { snapshot: None, machine: Some(self.info(&name)?) });
        }
        let found = self.resolve(rev)?;
        let survey = self.store.refs(found.machine).survey()?;
        let costs = found.name.as_ref().map(|name| costs::read(&self.home.machine(name))).unwrap_or_default();
        let snapshot = describe(self.store.snapshot(found.id)?, &survey, &costs);
        let machine = found.name.map(|name| self.info(&name)).transpose()?;
        Ok(Shown { snapshot: Some(snapshot), machine })
    }

    /// Gives a snapshot of the machine's history a tag.
    pub(crate) fn tag(&self, name: &MachineName, request: &TagRequest) -> Result<Tagged> {
        let lease = self.store.lease()?;
        let (generation, id) = self.in_history(name, &request.rev)?;
        self.store.refs(self.machine(name)?.1.config.id).tag(&request.tag, id, &lease)?;
        Ok(Tagged { name: name.clone(), tag: request.tag.clone(), id, generation })
    }

    /// Takes a tag away.
    pub(crate) fn untag(&self, name: &MachineName, tag: &str) -> Result<Tagged> {
        let refs = self.store.refs(self.machine(name)?.1.config.id);
        let snapshots = refs.survey()?.snapshots;
        let id = refs.untag(tag)?.ok_or_else(|| Error::BadRevision {
            rev: format!("{name}@{tag}"),
            problem: "is no tag".to_owned(),
            hint: format!("`watari log {name}` shows the tags"),
        })?;
        // Of a snapshot that is no longer in the history there is no generation to tell.
        let generation =
            snapshots.into_iter().find(|(_, of)| *of == id).map(|(found, _)| found).unwrap_or_default();
        Ok(Tagged { name: name.clone(), tag: tag.to_owned(), id, generation })
    }

    /// The snapshot that `rev` names, which must be one of the machine's.
    pub(crate) fn in_history(&self, name: &MachineName, rev: &str) -> Result<(Generation, SnapshotId)> {
        let found = self.resolve(rev)?;
        let refs = self.store.refs(self.machine(name)?.1.config.id);
        let snapshots = refs.survey()?.snapshots;
        snapshots.into_iter().find(|(_, id)| *id == found.id).ok_or_else(|| Error::BadRevision {
            rev: rev.to_owned(),
            problem: format!("is not in the history of {name}"),
            hint: format!("`watari clone {rev} NEW` makes a machine of it"),
        })
    }

    /// A machine's snapshots, newest first, and what could not be read of them.
    pub(crate) fn log(&self, name: &MachineName) -> Result<SnapshotList> {
        let (home, file) = self.machine(name)?;
        let (survey, costs) = (self.store.refs(file.config.id).survey()?, costs::read(&home));
        let mut damaged: Vec<String> = survey.damaged.iter().map(|e| ErrorReport::chain(e)).collect();
        let mut snapshots = Vec::new();
        for (generation, id) in survey.snapshots.iter().rev() {
            match self.store.snapshot(*id) {
                Ok(snapshot) => snapshots.push(describe(snapshot, &survey, &costs)),
                Err(error) => damaged.push(format!("{name}@{generation}: {}", ErrorReport::chain(&error))),
            }
        }
        Ok(SnapshotList { snapshots, damaged })
    }
}

fn describe(snapshot: Snapshot, refs: &Survey, costs: &HashMap<SnapshotId, Cost>) -> SnapshotInfo {
    let draft = snapshot.draft;
    let id = snapshot.id;
    SnapshotInfo {
        id,
        generation: draft.generation,
        name: draft.machine_name,
        parent: draft.parent,
        epoch: draft.epoch,
        branch: draft.branch,
        created_unix_ms: draft.created_unix_ms,
        message: draft.message,
        tags: refs.tags.iter().filter(|(_, of)| **of == id).map(|(tag, _)| tag.clone()).collect(),
        head: refs.head.is_some_and(|head| head.id == id),
        node: snapshot.node,
        qemu_version: draft.qemu_version,
        accelerator: draft.accelerator,
        regions: draft
            .regions
            .iter()
            .map(|region| RegionInfo {
                name: region.name.to_string(),
                bytes: region.bytes,
                changed_pages: snapshot
                    .changes
                    .get(&region.name)
                    .map_or(0, |counts| counts.data + counts.zero),
            })
            .collect(),
        device_state_bytes: snapshot.device_state_bytes,
        manifest_bytes: snapshot.manifest_bytes,
        capture: costs.get(&id).copied(),
    }
}
