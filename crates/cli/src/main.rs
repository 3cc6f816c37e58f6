//! The command line of Watari: every command asks the daemon over its API, except those that are a daemon or a
//! keeper themselves.

mod args;
mod client;
mod commands;
mod depots;
mod failure;
mod format;
mod graph;
mod output;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => {
            let json = cli.global.json;
            commands::run(cli).map_or_else(|failure| failure.tell(json), |()| ExitCode::SUCCESS)
        }
        Err(error) => failure::tell_usage(&error, std::env::args_os().any(|arg| arg == "--json")),
    }
}
