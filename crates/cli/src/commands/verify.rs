//! `watari verify`

use clap::Args;
use watari_node::api::{AffectedInfo, RepairedInfo, VerifyRequest, VerifyResult};

use super::Context;
use crate::args::machine_name;
use crate::depots::Unlock;
use crate::failure::{Failure, Result};
use crate::format::count;

/// Check that everything kept is still what was written; exit with 1 if it is not
#[derive(Args)]
#[command(long_about = "Check that everything kept is still what was written; exit with 1 if it is not

Every page is hashed again, every snapshot's signature checked. What is damaged is named, and which snapshots cannot be \
restored for it. With --repair, what is damaged or missing is taken from a depot as far as that has it, and what is reported \
is what is left.")]
pub(crate) struct Verify {
    /// Only this machine's history
    name: Option<String>,
    /// Take what is damaged from this depot
    #[arg(long, value_name = "DEPOT")]
    repair: Option<String>,
    #[command(flatten)]
    unlock: Unlock,
}

impl Verify {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let machine = self.name.as_deref().map(machine_name).transpose()?;
        let repair_from = self.repair.as_deref().map(|depot| self.unlock.depot(depot)).transpose()?;
        let request = VerifyRequest { machine, repair_from };
        let result: VerifyResult = context.client()?.post_with("verify", &request)?;
        context.out.result(&result, text)?;
        if result.damaged.is_empty() { Ok(()) } else { Err(Failure::Said) }
    }
}

fn text(result: &VerifyResult) -> String {
    let checked = format!(
        "{} of {} checked",
        count(result.pages_checked, "page"),
        count(result.snapshots_checked, "snapshot")
    );
    let repaired = result.repaired.as_ref().and_then(repaired).unwrap_or_default();
    if result.damaged.is_empty() {
        return format!("{repaired}{checked}, all as they were written");
    }
    let damaged = result.damaged.iter().map(|damage| format!("{}: {}\n", damage.path.display(), damage.what));
    let damaged: String = damaged.collect();
    let hint = match result.repaired {
        None => "`watari verify --repair DEPOT` takes what is damaged from a depot",
        Some(_) => "The depot does not have the rest",
    };
    format!("{repaired}{checked}; damaged:\n{damaged}{}{hint}", affected(&result.affected))
}

fn affected(affected: &[AffectedInfo]) -> String {
    if affected.is_empty() {
        return "All snapshots can be restored nevertheless.\n".to_owned();
    }
    let lines = affected.iter().map(|one| format!("{}@{}: {}\n", one.name, one.generation, one.what));
    let number = count(affected.len() as u64, "snapshot");
    format!("{number} cannot be restored, all others can:\n{}", lines.collect::<String>())
}

fn repaired(repaired: &RepairedInfo) -> Option<String> {
    let counts = [(repaired.pages, "page"), (repaired.snapshots, "snapshot"), (repaired.refs, "ref")];
    let had: Vec<String> = counts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(number, what))
        .collect();
    (!had.is_empty()).then(|| format!("taken from the depot: {}\n", had.join(", ")))
}
