//! What this node has written down about who may run which machine: `node/tenures/MACHINE.json`. A machine that never went
//! anywhere has none, and is the node's where it lives.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use watari_keeper::home::MachineHome;
use watari_keeper::protocol::Request;
use watari_keeper::record::{MachineState, Phase, load_json, save_json};
use watari_mesh::handover::{Action, Guest, Message, Record, Standing, Tenure};
use watari_types::{Epoch, MachineId, MachineName, NodeId};

use crate::api::MachineInfo;
use crate::node::{Node, hold};
use crate::{Error, Result};

/// Those that were asked for so far.
pub(crate) type Tenures = Mutex<BTreeMap<MachineId, Tenure>>;

/// While it lies in a machine's folder, its guest is held because of a hand-over and for nothing else.
const HELD: &str = "handing-over";
/// What is in there if there is nothing else of the machine here.
const NEW: &[u8] = b"new";

impl Node {
    fn tenure_file(&self, machine: MachineId) -> PathBuf {
        self.home.node_file("tenures").join(format!("{machine}.json"))
    }

    /// Forgets a machine that is not on this node any more; but for what it has refused, which others may still ask about.
    pub(crate) fn forget_tenure(&self, machine: MachineId) -> Result<()> {
        let path = self.tenure_file(machine);
        if !path.exists() {
            return Ok(());
        }
        let gone = self.with_tenure(machine, |tenure| tenure.given_up())?;
        self.persist(machine, &gone)
    }

    /// Does something with what is known of who may run a machine.
    pub(super) fn with_tenure<T>(
        &self,
        machine: MachineId,
        work: impl FnOnce(&mut Tenure) -> T,
    ) -> Result<T> {
        let name = self.name_of(machine)?;
        let state = name.as_ref().map(|name| MachineState::load(&self.home.machine(name))).transpose()?;
        let mut tenures = hold(&self.tenures);
        let tenure = match tenures.remove(&machine) {
            Some(tenure) => tenure,
            None => {
                let record = self.tenure_record(machine, state.as_ref())?;
                Tenure::restored(self.id, record, Guest::Absent).0
            }
        };
        let tenure = tenures.entry(machine).or_insert(tenure);
        state.iter().for_each(|state| tenure.activated(state.epoch));
        Ok(work(tenure))
    }

    fn tenure_record(&self, machine: MachineId, state: Option<&MachineState>) -> Result<Record> {
        let path = self.tenure_file(machine);
        if path.exists() {
            return Ok(load_json(&path)?);
        }
        let standing = if state.is_some() { Standing::Mine } else { Standing::Elsewhere(None) };
        Ok(Record { epoch: state.map_or(Epoch(0), |state| state.epoch), standing, refused: Epoch(0) })
    }

    /// Refuses a machine that may run elsewhere.
    pub(crate) fn ensure_mine(&self, machine: MachineId) -> Result<()> {
        if !self.tenure_file(machine).exists() {
            return Ok(());
        }
        let name = self.name_of(machine)?.map(|name| name.to_string()).unwrap_or_default();
        let back = format!("`watari resume {name} --here` takes it back, if it does not run there any more");
        match self.with_tenure(machine, |tenure| tenure.record().standing)? {
            Standing::Mine => Ok(()),
            Standing::Offering(node) => Err(Error::Elsewhere {
                why: format!("{name} was handed over to node {node}, which has not said what became of it"),
                hint: format!("it is asked until it does; {back}"),
            }),
            Standing::Elsewhere(Some(node)) => Err(Error::Elsewhere {
                why: format!("{name} lives on node {node} now"),
                hint: format!("`watari teleport` there brings it back; {back}"),
            }),
            Standing::Elsewhere(None) => {
                Err(Error::Elsewhere { why: format!("{name} was to come here, and has not"), hint: back })
            }
        }
    }

    /// The other node that a machine lives on, if it does.
    pub(crate) fn runs_at(&self, machine: MachineId) -> Option<NodeId> {
        if !self.tenure_file(machine).exists() {
            return None;
        }
        match self.with_tenure(machine, |tenure| tenure.record().standing) {
            Ok(Standing::Elsewhere(node)) => node,
            _ => None,
        }
    }

    /// At which epoch a machine runs, of which that much is known beside what is written down about who may run it.
    pub(crate) fn epoch_of(&self, machine: MachineId, activated: Epoch) -> Epoch {
        if !self.tenure_file(machine).exists() {
            return activated;
        }
        let record = self.with_tenure(machine, |tenure| tenure.is_mine().then(|| tenure.record().epoch));
        record.ok().flatten().map_or(activated, |epoch| epoch.max(activated))
    }

    /// The machines that have gone from one node to another, as far as this one has to do with it.
    pub(super) fn travelled(&self) -> Vec<MachineId> {
        let files = fs::read_dir(self.home.node_file("tenures")).into_iter().flatten().flatten();
        files.filter_map(|file| file.path().file_stem()?.to_str()?.parse().ok()).collect()
    }

    /// Carries out what follows from what was said, but for making room and loading. Returns what is to be said, to whom.
    ///
    /// # Errors
    /// Something could not be done, and nothing after it was. What is written down counts.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        machine: MachineId,
        actions: Vec<Action>,
    ) -> Result<Vec<(NodeId, Message)>> {
        let mut said = Vec::new();
        for action in actions {
            let done = self.carry_out_one(machine, action, &mut said);
            if let Err(error) = done {
                // What it had decided did not come about.
                hold(&self.tenures).remove(&machine);
                return Err(error);
            }
        }
        Ok(said)
    }

    fn carry_out_one(
        self: &Arc<Self>,
        machine: MachineId,
        action: Action,
        said: &mut Vec<(NodeId, Message)>,
    ) -> Result<()> {
        let name = self.name_of(machine)?;
        match (action, name) {
            (Action::Persist(record), _) => self.persist(machine, &record),
            (Action::Send(to, message), _) => {
                said.push((to, message));
                Ok(())
            }
            (Action::Hold, Some(name)) if self.live(&name).is_some() => {
                self.steer(&name, &Request::Pause).map(drop)
            }
            (Action::GoOn(_), Some(name)) => self.let_go_on(&name),
            // Not before everything that it has is there.
            (Action::Discard, Some(name)) if self.is_lending(&name) => Ok(()),
            (Action::Discard, Some(name)) => self.discard(&name),
            _ => Ok(()),
        }
    }

    fn persist(&self, machine: MachineId, record: &Record) -> Result<()> {
        let path = self.tenure_file(machine);
        let folder = path.parent().unwrap_or(self.home.root());
        fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        Ok(save_json(&path, record)?)
    }

    /// Lets a guest go on that is held for a hand-over.
    fn let_go_on(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        // Its keeper may have died meanwhile.
        self.settle(name)?;
        if self.live(name).is_some() {
            self.steer(name, &Request::Resume)?;
        }
        self.end_lending(name)?;
        self.mark_held(name, false)
    }

    /// Ends a guest that is held here and goes on elsewhere, or does not come. The snapshot that it went with stays.
    pub(super) fn discard(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        self.settle(name)?;
        if let Some(live) = self.live(name) {
            self.end_now(name, &live)?;
            live.wait_for_end()?;
        }
        self.pass_no_wants(name);
        let home = self.home.machine(name);
        if self.is_new(name) {
            return self.remove(name).map(drop);
        }
        let state = MachineState::load(&home)?;
        let resume_from = state.base.map(|base| base.id);
        let phase = if resume_from.is_some() { Phase::Suspended } else { Phase::Stopped };
        MachineState { phase, reason: String::new(), resume_from, ..state }.save(&home)?;
        self.mark_held(name, false)
    }

    /// Notes that a guest is held that is to come, of which there is nothing else here: it is gone if it does not come.
    pub(super) fn mark_new(&self, name: &MachineName) -> Result<()> {
        let path = marker(&self.home.machine(name));
        fs::write(&path, NEW).map_err(Error::io("write", &path))
    }

    /// A guest that was to come has not, and is not held any more.
    pub(super) fn did_not_come(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        self.pass_no_wants(name);
        if self.is_new(name) {
            return self.remove(name).map(drop);
        }
        self.mark_held(name, false)
    }

    fn is_new(&self, name: &MachineName) -> bool {
        fs::read(marker(&self.home.machine(name))).is_ok_and(|content| content == NEW)
    }

    /// Notes that a guest is held because of a hand-over, or is no more.
    pub(super) fn mark_held(&self, name: &MachineName, is_held: bool) -> Result<()> {
        let path = marker(&self.home.machine(name));
        if is_held {
            return fs::write(&path, "").map_err(Error::io("write", &path));
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// What follows for guests that a daemon which died held because of a hand-over.
    pub(super) fn recover_held(self: &Arc<Self>) -> Result<()> {
        for name in self.home.machine_names()? {
            let _busy = self.blocking_lock(&name);
            if let Err(error) = self.recover_one(&name) {
                tracing::error!(%name, error = &error as &dyn std::error::Error, "its guest stays held");
            }
        }
        Ok(())
    }

    /// The same for one, whose lock is held.
    pub(super) fn recover_one(self: &Arc<Self>, name: &MachineName) -> Result<()> {
        if !marker(&self.home.machine(name)).exists() {
            return Ok(());
        }
        let machine = self.machine(name)?.1.config.id;
        match self.with_tenure(machine, |tenure| tenure.record().standing)? {
            Standing::Mine => self.let_go_on(name),
            Standing::Elsewhere(_) if self.is_lending(name) => Ok(()),
            Standing::Elsewhere(_) => self.discard(name),
            // Until it is known.
            Standing::Offering(_) => Ok(()),
        }
    }

    /// Takes a machine back that was handed over, on a person's word that the other node does not run it.
    pub(crate) fn resume_here(self: &Arc<Self>, name: &MachineName) -> Result<MachineInfo> {
        let machine = self.machine(name)?.1.config.id;
        let guest = if self.live(name).is_some() { Guest::Held } else { Guest::Absent };
        let actions = self.with_tenure(machine, |tenure| tenure.take_back(guest))?;
        if actions.is_empty() {
            return self.resume(name);
        }
        self.carry_out(machine, actions)?;
        // The later epoch is what the other one gives way to.
        let home = self.home.machine(name);
        if self.live(name).is_none() {
            let state = MachineState::load(&home)?;
            let epoch = self.with_tenure(machine, |tenure| tenure.record().epoch)?;
            MachineState { epoch: state.epoch.max(epoch), ..state }.save(&home)?;
        }
        self.info(name)
    }
}

fn marker(home: &MachineHome) -> PathBuf {
    home.folder().join(HELD)
}
