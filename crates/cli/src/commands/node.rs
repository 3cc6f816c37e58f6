//! `watari node`

use std::ffi::OsString;

use clap::Args;
use tracing_subscriber::EnvFilter;
use watari_node::Options;
use watari_node::api::NodeInfo;

use super::Context;
use crate::args::TMPFS;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Run the daemon in the foreground; its machines outlive it
#[derive(Args)]
pub(crate) struct Node {
    /// The web page's port on 127.0.0.1 [default: any that is free]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Leave the terminal's session
    #[arg(long, hide = true)]
    detach: bool,
}

impl Node {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let options = Options {
            home: context.global.home()?,
            tmpfs: TMPFS.into(),
            search_path: search_path(),
            port: self.port,
        };
        if self.detach {
            detach()?;
        }
        log_to_stderr();
        watari_node::serve(options, |info| tell(&context.out, info))?;
        Ok(())
    }
}

/// Says that the daemon answers. A daemon whose output nobody reads serves nevertheless.
fn tell(out: &Output, info: &NodeInfo) {
    let told = out.result(info, |info| format!("node {} answers; web page: {}", info.node_id, info.web_url));
    if let Err(Failure::Report(report)) = told {
        tracing::warn!(%report, "cannot say that the daemon answers");
    }
}

/// Leaves the terminal's session, and the folder it was started in free to be unmounted.
pub(super) fn detach() -> Result<()> {
    rustix::process::setsid().map_err(|e| Failure::io("start a session", &e.into()))?;
    std::env::set_current_dir("/").map_err(|e| Failure::io("leave the working folder", &e))
}

/// Sends what the libraries tell to standard error; `WATARI_LOG` says how much.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("WATARI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// Where programs are looked for.
pub(super) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
