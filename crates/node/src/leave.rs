//! What a machine leaves behind when it goes back: kept as a snapshot, and its memory taken over.

use std::fs::File;
use std::sync::Arc;

use watari_keeper::protocol::{GivenUp, Request, Start};
use watari_keeper::record::{MachineState, Point};
use watari_keeper::{has_unkept_disks, memory_of, not_kept};
use watari_types::{ErrorKind, MachineName, SnapshotId};

use crate::node::{Node, OnProgress};
use crate::{Error, Result};

/// How often a keeper may die while it is asked, before that is taken for its fault.
const ATTEMPTS: u32 = 3;

/// What is left of a machine that runs no more.
#[derive(Default)]
pub(crate) struct Left {
    /// Its memory, if that holds what the wanted snapshot does.
    pub(crate) memory: Option<File>,
    /// The snapshot of it.
    pub(crate) kept: Option<Point>,
}

impl Node {
    /// Ends a machine for a restore of `wanted`, once its keeper knows that everything a resume will read is there.
    /// With `keep` what it leaves behind becomes a snapshot with that message first, if it is in none.
    ///
    /// A machine that does not run leaves its disks behind. It is powered on for that and held before its first
    /// instruction: then it is like any other, and its snapshot can be restored like any other.
    ///
    /// # Errors
    /// The machine is as it was. If it could not be kept, the error says how to do without.
    pub(crate) fn leave(
        self: &Arc<Self>,
        name: &MachineName,
        wanted: SnapshotId,
        keep: Option<String>,
        progress: OnProgress,
    ) -> Result<Left> {
        let mut before = None;
        for _ in 0..ATTEMPTS {
            if keep.is_some() && self.live(name).is_none() && self.has_unkept_disks(name)? {
                before = Some(self.power_on(name, progress)?);
            }
            let Some(live) = self.live(name) else { return Ok(Left::default()) };
            let memory = memory_of(live.status().qemu_pid).ok();
            let request = Request::GiveUp { snapshot: wanted, keep: keep.clone() };
            match self.ask::<GivenUp>(name, &request, progress) {
                Ok(GivenUp { memory_is_ready, kept }) => {
                    live.wait_for_end()?;
                    return Ok(Left { memory: memory.filter(|_| memory_is_ready), kept });
                }
                // It was just ending, or its keeper was. Then this is to be done with what is there now.
                Err(Error::Report(report)) if report.kind == ErrorKind::NoKeeper => {
                    live.wait_for_end()?;
                    self.settle(name)?;
                }
                Err(error) => {
                    before.map_or(Ok(()), |before| self.power_off_again(name, before))?;
                    return Err(error);
                }
            }
        }
        Err(Error::Internal(format!("the keepers of {name} die, one after the other")))
    }

    fn has_unkept_disks(&self, name: &MachineName) -> Result<bool> {
        let (home, file) = self.machine(name)?;
        let found = has_unkept_disks(&home, file.config.disks.len());
        found.map_err(|error| not_kept(&error.report()).into())
    }

    /// Powers a machine on and holds it before its first instruction. Returns what it was before.
    fn power_on(self: &Arc<Self>, name: &MachineName, progress: OnProgress) -> Result<MachineState> {
        let before = MachineState::load(&self.home.machine(name))?;
        let started = self.run_keeper(name, &Start::Boot { held: true }, None, progress);
        started.map_err(|error| not_kept(&error.report()))?;
        Ok(before)
    }

    /// Ends a machine that was [powered on](Self::power_on) in vain, and has it be what it was before.
    fn power_off_again(&self, name: &MachineName, before: MachineState) -> Result<()> {
        if let Some(live) = self.live(name) {
            self.end_now(name, &live)?;
        }
        let home = self.home.machine(name);
        let now = MachineState::load(&home)?;
        Ok(MachineState { phase: before.phase, reason: before.reason, ..now }.save(&home)?)
    }
}
