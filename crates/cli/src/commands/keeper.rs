//! `watari keeper`: what the daemon starts for each machine that is to run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use watari_types::{ErrorKind, ErrorReport};

use super::node::{detach, log_to_stderr};
use crate::args::machine_name;
use crate::failure::{Failure, Result};

/// Run one machine
#[derive(Args)]
pub(crate) struct Keeper {
    /// The home
    home: PathBuf,
    /// Where memory heads lie
    tmpfs: PathBuf,
    /// The machine
    name: String,
    /// How it comes to life, in JSON
    start: String,
    /// What QEMU shows it with, in JSON
    display: String,
}

impl Keeper {
    pub(crate) fn run(&self) -> Result<()> {
        let name = machine_name(&self.name)?;
        let start = serde_json::from_str(&self.start)
            .map_err(|e| ErrorReport::new(ErrorKind::BadRequest, format!("not a start: {e}"), ""))?;
        let display = serde_json::from_str(&self.display)
            .map_err(|e| ErrorReport::new(ErrorKind::BadRequest, format!("not a display: {e}"), ""))?;
        detach()?;
        log_to_stderr();
        if watari_keeper::run(&self.home, &self.tmpfs, name, start, display) == ExitCode::SUCCESS {
            Ok(())
        } else {
            Err(Failure::Said)
        }
    }
}
