//! `watari man`

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::failure::{Failure, Result};

/// Write the manual pages into a folder
#[derive(Args)]
pub(crate) struct Man {
    /// The folder, which must be there
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(&self) -> Result<()> {
        clap_mangen::generate_to(Cli::command(), &self.folder)
            .map_err(|e| Failure::io(&format!("write manual pages to {}", self.folder.display()), &e))
    }
}
