//! What every command has in common: where the home is and how to answer.

use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use watari_types::{ErrorKind, ErrorReport, MachineName, NameError, Rev};

use crate::commands::Command;
use crate::failure::{Failure, Result};

/// A running computer that can walk across a network.
#[derive(Parser)]
#[command(name = "watari", version, max_term_width = 100, after_help = REV_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const REV_HELP: &str = "REV is NAME, NAME@GENERATION, NAME@TAG, or the beginning of a snapshot's id.";

/// Options that every command takes.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Where everything lies [default: $XDG_DATA_HOME/watari, ~/.local/share/watari, or /var/lib/watari for root]
    #[arg(long, env = "WATARI_HOME", value_name = "FOLDER", global = true, hide_env = true)]
    home: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Where memory that clones share lies.
pub(crate) const TMPFS: &str = "/dev/shm";

impl Global {
    /// The home's folder, as an absolute path.
    pub(crate) fn home(&self) -> Result<PathBuf> {
        let home = self.home.clone().or_else(default_home).ok_or_else(|| {
            ErrorReport::new(
                ErrorKind::BadRequest,
                "there is no folder for this user's data",
                "give one with --home",
            )
        })?;
        absolute(&home)
    }

    /// The socket of the home's daemon.
    pub(crate) fn node_socket(&self) -> Result<PathBuf> {
        Ok(self.home()?.join("run/node"))
    }
}

fn default_home() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/watari".into());
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    data.or_else(|| Some(std::env::home_dir()?.join(".local/share"))).map(|data| data.join("watari"))
}

/// A path that means the same to the daemon, whose working folder is another.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::io(&format!("find {}", path.display()), &e))
}

/// A machine's name, or why it cannot be one.
pub(crate) fn machine_name(text: &str) -> Result<MachineName> {
    text.parse().map_err(|e: NameError| ErrorReport::new(ErrorKind::BadName, e, NameError::HINT).into())
}

/// A revision, or why it cannot be one.
pub(crate) fn revision(text: &str) -> Result<Rev> {
    text.parse().map_err(|e| {
        let hint = "write NAME, NAME@GENERATION, NAME@TAG or the beginning of a snapshot's id";
        ErrorReport::new(ErrorKind::BadRevision, e, hint).into()
    })
}
