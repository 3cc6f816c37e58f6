//! Hashing everything again.

use watari_keeper::protocol::Progress;

use crate::Result;
use crate::api::{DamageInfo, VerifyRequest, VerifyResult};
use crate::node::{Node, OnProgress};

impl Node {
    /// Checks a machine's history, or every one, against the names its pages and manifests have.
    pub(crate) fn verify(&self, request: &VerifyRequest, progress: OnProgress) -> Result<VerifyResult> {
        let machine = match &request.machine {
            Some(name) => Some(self.machine(name)?.1.config.id),
            None => None,
        };
        let report = self.store.verify(machine, &|at| {
            progress(Progress {
                step: "hashing pages".to_owned(),
                done: at.pages_done,
                total: at.pages_total,
            });
        })?;
        Ok(VerifyResult {
            snapshots_checked: report.snapshots_checked,
            pages_checked: report.pages_checked,
            damaged: report
                .damaged
                .into_iter()
                .map(|damage| DamageInfo { path: damage.path, what: damage.what })
                .collect(),
        })
    }
}
