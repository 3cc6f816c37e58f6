//! Hashing everything again, and having back from a depot what is damaged.

use watari_depot::{Access, Address};
use watari_keeper::protocol::Progress;
use watari_store::{Affected, Repaired, VerifyProgress, VerifyReport};

use crate::Result;
use crate::api::{AffectedInfo, DamageInfo, RepairedInfo, VerifyRequest, VerifyResult};
use crate::depots;
use crate::node::{Node, OnProgress};

impl Node {
    /// Checks a machine's history, or every one, against the names its pages and manifests have; and takes what is not as
    /// it was from a depot, if one is named.
    pub(crate) fn verify(&self, request: &VerifyRequest, progress: OnProgress) -> Result<VerifyResult> {
        let machine = match &request.machine {
            Some(name) => Some(self.machine(name)?.1.config.id),
            None => None,
        };
        let hashing = |at: VerifyProgress| {
            let step = "hashing pages".to_owned();
            progress(Progress { step, done: at.pages_done, total: at.pages_total });
        };
        let Some(from) = &request.repair_from else {
            return self.verify_result(self.store.verify(machine, &hashing)?, None);
        };
        depots::tell(progress, "looking at the depot");
        let depot = self.open_depot(from, &Address::parse(&from.address)?, Access::Read)?;
        let (report, repaired) = self.store.repair(machine, &depot, &hashing)?;
        self.verify_result(report, Some(repaired))
    }

    fn verify_result(&self, report: VerifyReport, repaired: Option<Repaired>) -> Result<VerifyResult> {
        let affected = |one: Affected| {
            let name = self.name_of(one.machine)?;
            let name = name.map_or_else(|| one.machine.to_string(), |name| name.to_string());
            Ok(AffectedInfo { name, generation: one.generation, id: one.id, what: one.what })
        };
        let damaged = report.damaged.into_iter();
        Ok(VerifyResult {
            snapshots_checked: report.snapshots_checked,
            pages_checked: report.pages_checked,
            damaged: damaged.map(|damage| DamageInfo { path: damage.path, what: damage.what }).collect(),
            affected: report.affected.into_iter().map(affected).collect::<Result<_>>()?,
            repaired: repaired.map(|Repaired { refs, snapshots, pages, packs }| RepairedInfo {
                refs,
                snapshots,
                pages,
                packs,
            }),
        })
    }
}
