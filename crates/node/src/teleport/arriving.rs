//! The destination's side: could a machine come, is it coming, has it come.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use watari_keeper::protocol::Start;
use watari_keeper::record::{MachineFile, MachineState, NetworkStart, Phase, Point};
use watari_mesh::handover::{Action, Arriving, Call, Footing, Reply, Visitor};
use watari_qemu::Version;
use watari_store::Sent;
use watari_types::{Epoch, MachineConfig, MachineId, MachineName, NodeId, SnapshotId};

use super::coming::Coming;
use crate::create::now_unix_ms;
use crate::depots::Arrived;
use crate::network::ensure_bridge;
use crate::node::{Node, hold};
use crate::{Error, Result};

impl Node {
    /// Does what another node says about who may run a machine; what is to be answered.
    pub(crate) fn hear_of(self: &Arc<Self>, from: NodeId, machine: MachineId, call: &Call) -> Reply {
        self.hear(from, machine, call).unwrap_or_else(|error| {
            tracing::error!(%from, %machine, error = &error as &dyn std::error::Error, "a hand-over failed");
            // What was to be written down was not, and a guest may be held for it.
            if let Ok(Some(name)) = self.name_of(machine)
                && let Err(error) = self.recover_one(&name)
            {
                tracing::error!(%name, error = &error as &dyn std::error::Error, "its guest stays held");
            }
            Reply { message: None, why: Some(error.report()) }
        })
    }

    fn hear(self: &Arc<Self>, from: NodeId, machine: MachineId, call: &Call) -> Result<Reply> {
        let name = match &call.visitor {
            Some(visitor) => Some(self.name_here(machine, &visitor.name, None)?),
            None => self.name_of(machine)?,
        };
        // What was decided is done, and written down, before anything else is answered about the machine.
        let coming = self.coming(from, machine, call.message);
        let busy = name.filter(|_| coming.is_none()).map(|name| self.blocking_lock(&name));
        let came = coming.as_ref().map(|coming| coming.outcome(call.message));
        let why_not = came.as_ref().and_then(|came| came.as_ref().err()).map(Error::report);
        let mut reply = Reply { message: None, why: why_not };
        let mut actions =
            VecDeque::from(self.with_tenure(machine, |tenure| tenure.handle(from, call.message))?);
        while let Some(action) = actions.pop_front() {
            let more = match action {
                Action::Prepare => {
                    let could = self.could_come(machine, call);
                    let more = self.with_tenure(machine, |tenure| tenure.prepared(could.is_ok()))?;
                    reply.why = could.err().map(|error| error.report());
                    more
                }
                Action::Load => {
                    self.with_tenure(machine, |tenure| tenure.loaded(matches!(came, Some(Ok(())))))?
                }
                other => {
                    let said = self.carry_out(machine, vec![other])?;
                    reply.message = said
                        .into_iter()
                        .find(|(to, _)| *to == from)
                        .map(|(_, message)| message)
                        .or(reply.message);
                    continue;
                }
            };
            more.into_iter().rev().for_each(|action| actions.push_front(action));
        }
        drop((busy, coming));
        Ok(reply)
    }

    /// Whether a machine could run here.
    fn could_come(self: &Arc<Self>, machine: MachineId, call: &Call) -> Result<()> {
        let Some(Visitor { name, config, qemu_version, bridge, lazy }) = &call.visitor else {
            return Err(Error::BadRequest("nothing is said of the machine that is to come".to_owned()));
        };
        let name = self.name_here(machine, name, None)?;
        if self.name_of(machine)?.is_none() {
            self.ensure_free(&name)?;
        }
        if self.live(&name).is_some() {
            return Err(Error::RunsHere(name));
        }
        if *lazy && !watari_ram::can_watch() {
            return Err(watari_keeper::Error::CannotBorrow.into());
        }
        ensure_bridge(bridge.as_ref())?;
        let qemu = self.qemu()?;
        self.ensure_qemu(&qemu.version, qemu_version)?;
        self.ensure_accelerator(&qemu, &|_| ())?;
        self.ensure_memory(&name, config.memory_bytes, 0)
    }

    /// A newer QEMU's devices are not loaded by an older one.
    fn ensure_qemu(&self, ours: &Version, theirs: &str) -> Result<()> {
        let theirs: Option<Version> = Version::try_from(theirs.to_owned()).ok();
        match theirs {
            Some(theirs) if theirs <= *ours => Ok(()),
            Some(theirs) => Err(Error::OlderQemu { ours: ours.to_string(), theirs: theirs.to_string() }),
            None => Err(Error::BadRequest("nothing is said of the QEMU that the machine runs on".to_owned())),
        }
    }

    /// Gets ready for a machine that comes: a keeper takes what another one sends. Returns where it listens, and what there is of
    /// the machine.
    pub(crate) fn await_machine(
        self: &Arc<Self>,
        from: NodeId,
        machine: MachineId,
        arriving: Arriving,
    ) -> Result<(UnixStream, Footing)> {
        let Arriving { epoch, lazy, .. } = arriving;
        let base = self.newest_of(machine, &arriving.lineage)?;
        let name = self.name_here(machine, &arriving.name, None)?;
        let busy = self.blocking_lock(&name);
        if !self.with_tenure(machine, |tenure| tenure.awaits(from, epoch))? {
            return Err(Error::BadRequest(format!("{name} was not to come")));
        }
        let is_new = self.name_of(machine)?.is_none();
        let lacks_boot = is_new && base.is_none();
        let start = match base {
            _ if lazy => Start::Borrow { base, from },
            Some(Point { generation, id }) => Start::Receive { snapshot: id, generation },
            None => return Err(Error::BadRequest(format!("{name} was to come after its snapshot"))),
        };
        let room = self.with_tenure(machine, |tenure| tenure.makes_room())?;
        self.carry_out(machine, room)?;
        if is_new {
            self.make_room(&name, machine, base, &arriving)?;
        }
        self.stand_at(&name, base, arriving)?;
        match lacks_boot {
            true => self.mark_new(&name)?,
            false => self.mark_held(&name, true)?,
        }
        if lazy {
            self.pass_wants(&name, machine, from)?;
        }
        let failed = |source| watari_keeper::Error::Migration { source };
        let (ours, keepers) = UnixStream::pair().map_err(failed)?;
        let coming = Coming::begin(
            self,
            (from, machine, epoch),
            name,
            busy,
            ours.try_clone().map_err(failed)?,
            move |node, name| node.run_keeper(name, &start, Some(keepers.into()), &|_| ()).map(drop),
        )?;
        // What was to come before has not, or it would not come again.
        hold(&self.coming).insert(machine, coming);
        Ok((ours, Footing { base: base.map(|base| base.id), lacks_boot }))
    }

    /// The newest snapshot of a machine's lineage that is here, and may be run.
    fn newest_of(&self, machine: MachineId, lineage: &[SnapshotId]) -> Result<Option<Point>> {
        let here = self.store.refs(machine).survey()?.snapshots;
        let is_here = |id: &SnapshotId| here.iter().find(|(_, one)| one == id).copied();
        let newest = lineage.iter().find_map(is_here).map(|(generation, id)| Point { generation, id });
        newest.map_or(Ok(()), |newest| self.ensure_trusted(newest.id))?;
        Ok(newest)
    }

    /// Makes a machine that is new here, of a snapshot or of nothing.
    fn make_room(
        &self,
        name: &MachineName,
        machine: MachineId,
        base: Option<Point>,
        arriving: &Arriving,
    ) -> Result<()> {
        if let Some(Point { generation, id }) = base {
            let snapshots = [(generation, id)];
            let arrived = Arrived { machine, snapshots: &snapshots, received: Sent::default() };
            return self.settle_in(arrived, name.clone(), true).map(drop);
        }
        let file = MachineFile {
            name: name.clone(),
            created_unix_ms: now_unix_ms(),
            origin: None,
            bridge: arriving.bridge.clone(),
            retention: arriving.retention.clone(),
            config: MachineConfig { id: machine, ..(*arriving.config).clone() },
        };
        self.build(name, |_| Ok((file, MachineState::new()))).map(drop)
    }

    /// Writes down what the machine is now, so that its next activation is the one at that epoch.
    fn stand_at(&self, name: &MachineName, base: Option<Point>, arriving: Arriving) -> Result<()> {
        let Arriving { epoch, config, retention, bridge, .. } = arriving;
        let (home, file) = self.machine(name)?;
        let config = MachineConfig { id: file.config.id, ..*config };
        MachineFile { config, retention, bridge, ..file }.save(&home)?;
        let before = MachineState::load(&home)?;
        let state = MachineState {
            phase: if base.is_some() { Phase::Suspended } else { Phase::Stopped },
            reason: String::new(),
            epoch: before.epoch.max(Epoch(epoch.0.saturating_sub(1))),
            base,
            resume_from: base.map(|base| base.id),
            network: NetworkStart::Same,
        };
        Ok(state.save(&home)?)
    }
}
