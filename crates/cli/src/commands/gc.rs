//! `watari gc`

use clap::Args;
use watari_node::api::{GcRequest, GcResult};

use super::Context;
use crate::failure::Result;
use crate::format::{bytes, count};

/// Apply every machine's retention, and remove what nothing needs any more
#[derive(Args)]
#[command(long_about = "Apply every machine's retention, and remove what nothing needs any more

Which snapshots a machine keeps stands in its machine.toml:

    [retention]
    keep-last = 60
    keep-every = [\"1h for 2d\", \"1d for 90d\", \"30d\"]

The newest 60 are kept, and the last of every hour for two days, of every day for ninety, and of every 30 days for \
ever. Snapshots with a tag, and the one that the machine's present state descends from, always stay. Without a policy all do.

The daemon does the same by itself, now and then. Machines run on, and snapshots are taken meanwhile.")]
pub(crate) struct Gc {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let request = GcRequest { dry_run: self.dry_run };
        let result: GcResult = context.client()?.post_with("gc", &request)?;
        context.out.result(&result, text)
    }
}

fn text(result: &GcResult) -> String {
    let mut text = if result.dry_run {
        format!(
            "{} would expire, about {} would be freed",
            count(result.snapshots_expired, "snapshot"),
            bytes(result.freed_bytes)
        )
    } else {
        format!(
            "{} expired, {} freed",
            count(result.snapshots_expired, "snapshot"),
            bytes(result.freed_bytes)
        )
    };
    if result.is_held_back {
        text += "\nSnapshots that are being made may need some of it; the rest goes next time";
    }
    for left in &result.left {
        text += &format!("\nleft as it is: {left}");
    }
    text
}
