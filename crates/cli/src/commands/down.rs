//! `watari down`

use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use watari_node::api::{NodeInfo, ShutdownRequest};
use watari_types::{ErrorKind, ErrorReport};

use super::Context;
use crate::failure::Result;

/// Stop the daemon; its machines run on
#[derive(Args)]
pub(crate) struct Down {
    /// Stop its machines too: each is asked to power off, and killed if it has not after 20 seconds
    #[arg(long)]
    machines: bool,
}

/// How long a daemon that said goodbye may take to be gone: as long as an operation under way may last.
const GOODBYE: Duration = Duration::from_secs(120);

impl Down {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let request = ShutdownRequest { machines: self.machines };
        let info: NodeInfo = context.client()?.post_with("node/shutdown", &request)?;
        if !is_gone(info.pid) {
            let message = format!("the daemon (process {}) does not end", info.pid);
            return Err(ErrorReport::new(ErrorKind::Internal, message, "see node.log in its home").into());
        }
        context.out.result(&info, |_| match self.machines {
            true => "the daemon and its machines are stopped".to_owned(),
            false => "the daemon is stopped; machines that ran still do".to_owned(),
        })
    }
}

/// Waits until the process is gone.
fn is_gone(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: GOODBYE.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}
