//! `watari verify`

use clap::Args;
use watari_node::api::{VerifyRequest, VerifyResult};

use super::Context;
use crate::args::machine_name;
use crate::failure::{Failure, Result};
use crate::format::count;

/// Check that everything kept is still what was written; exit with 1 if it is not
#[derive(Args)]
pub(crate) struct Verify {
    /// Only this machine's history
    name: Option<String>,
}

impl Verify {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let machine = self.name.as_deref().map(machine_name).transpose()?;
        let result: VerifyResult = context.client()?.post_with("verify", &VerifyRequest { machine })?;
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
    if result.damaged.is_empty() {
        return format!("{checked}, all as they were written");
    }
    let damaged = result.damaged.iter().map(|damage| format!("{}: {}\n", damage.path.display(), damage.what));
    format!("{checked}; damaged:\n{}", damaged.collect::<String>())
}
