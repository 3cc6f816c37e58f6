//! `watari core`

use std::path::PathBuf;

use clap::Args;
use watari_node::api::{CoreInfo, CoreRequest};

use super::Context;
use crate::args::{absolute, revision};
use crate::failure::Result;
use crate::format::bytes;

/// Write a snapshot's memory and registers to a file, for gdb and crash
///
/// The file is an ELF core of the guest's physical memory, with the registers of each of its CPUs. Open it with `gdb -c
/// FILE VMLINUX` or `crash VMLINUX FILE`. Only its owner may read it, and pages that are zero take no space in it.
#[derive(Args)]
pub(crate) struct Core {
    /// The snapshot
    rev: String,
    /// The file
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(short, long)]
    force: bool,
}

impl Core {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        let request = CoreRequest { path: absolute(&self.file)?, force: self.force };
        let core: CoreInfo =
            context.client()?.post_with(&format!("snapshots/{}/core", self.rev), &request)?;
        context.out.result(&core, |core| {
            let (size, allocated) = (bytes(core.bytes), bytes(core.allocated_bytes));
            format!("wrote {}: {size}, of which {allocated} take space", core.path.display())
        })
    }
}
