//! `watari disk`

use clap::{Args, Subcommand};
use watari_node::api::{ExportInfo, ExportRequest};
use watari_types::{ErrorKind, ErrorReport};

use super::Context;
use crate::args::revision;
use crate::failure::Result;

/// Look into the disks of snapshots
#[derive(Args)]
pub(crate) struct Disk {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Serve(Serve),
}

/// Serve a snapshot's disk, read-only, over NBD until interrupted; prints first where
#[derive(Args)]
struct Serve {
    /// The snapshot
    rev: String,
    /// Which of its disks
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    disk: usize,
}

impl Disk {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let What::Serve(serve) = &self.what;
        serve.run(context)
    }
}

impl Serve {
    fn run(&self, context: &Context) -> Result<()> {
        revision(&self.rev)?;
        let request = ExportRequest { rev: self.rev.clone(), disk: self.disk };
        context.client()?.hold("exports", &request, |export: ExportInfo| {
            context.out.result(&export, |export| export.uri.clone())
        })?;
        Err(ErrorReport::new(ErrorKind::NoDaemon, "the daemon ended the export", "").into())
    }
}
