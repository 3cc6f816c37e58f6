//! `watari up`

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use clap::Args;
use watari_keeper::home::Home;
use watari_node::api::{ErrorBody, NodeInfo};
use watari_types::{ErrorKind, ErrorReport};

use super::Context;
use crate::args::TMPFS;
use crate::failure::{Failure, Result};

/// Start the daemon in the background, unless it runs already
#[derive(Args)]
pub(crate) struct Up {
    /// The web page's port on 127.0.0.1 [default: any that is free]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
}

impl Up {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match context.client()?.get::<NodeInfo>("node") {
            Ok(info) => context.out.result(&info, |info| tell("the daemon runs already", info)),
            Err(Failure::Report(report)) if report.kind == ErrorKind::NoDaemon => {
                let info = self.start(context)?;
                context.out.result(&info, |info| tell("the daemon runs", info))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Starts the daemon, which says on its standard output that it answers, or why it cannot.
    fn start(&self, context: &Context) -> Result<NodeInfo> {
        let home = Home::open(&context.global.home()?, TMPFS.as_ref())?;
        let path = home.node_file("node.log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Failure::io(&format!("open {}", path.display()), &e))?;
        let program = std::env::current_exe().map_err(|e| Failure::io("find this program", &e))?;
        let mut daemon = Command::new(&program)
            .arg("--home")
            .arg(home.root())
            .args(["--json", "node", "--detach", "--port", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| Failure::io(&format!("run {}", program.display()), &e))?;
        let mut line = String::new();
        if let Some(stdout) = daemon.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|e| Failure::io("hear from the daemon", &e))?;
        }
        if let Ok(info) = serde_json::from_str(&line) {
            return Ok(info);
        }
        Err(match serde_json::from_str::<ErrorBody>(&line) {
            Ok(body) => body.error,
            Err(_) => ErrorReport::new(
                ErrorKind::Internal,
                "the daemon ended before it answered",
                format!("see {}", path.display()),
            ),
        }
        .into())
    }
}

fn tell(what: &str, info: &NodeInfo) -> String {
    format!("{what}, with its home in {}\nweb page: {}", info.home.display(), info.web_url)
}
