//! Who can die while a machine goes from `alpha` to `beta`.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{Lab, text};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Victim {
    SourceDaemon,
    SourceKeeper,
    SourceQemu,
    DestinationDaemon,
    DestinationKeeper,
    DestinationQemu,
}

impl Victim {
    pub const ALL: [Victim; 6] = [
        Victim::SourceDaemon,
        Victim::SourceKeeper,
        Victim::SourceQemu,
        Victim::DestinationDaemon,
        Victim::DestinationKeeper,
        Victim::DestinationQemu,
    ];

    /// Its process, if there is one now.
    fn pid(self, alpha: &Lab, beta: &Lab) -> Option<u32> {
        let qemu = |lab: &Lab| {
            let record = fs::read(lab.home().join("run/m/instance.json")).ok()?;
            serde_json::from_slice::<Value>(&record).ok()?["qemu_pid"].as_u64().map(|pid| pid as u32)
        };
        // What QEMU was started by, whether or not it runs its guest yet.
        let keeper = |lab: &Lab| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", qemu(lab)?)).ok()?;
            stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
        };
        let daemon = |lab: &Lab| lab.ok(&["up"])["pid"].as_u64().map(|pid| pid as u32);
        match self {
            Victim::SourceDaemon => daemon(alpha),
            Victim::SourceKeeper => keeper(alpha),
            Victim::SourceQemu => qemu(alpha),
            Victim::DestinationDaemon => daemon(beta),
            Victim::DestinationKeeper => keeper(beta),
            Victim::DestinationQemu => qemu(beta),
        }
    }

    /// `alpha` runs a command as soon as it sees `beta`, and so many milliseconds later this one is killed. What the command
    /// said.
    pub fn dies_in(self, alpha: &Lab, beta: &Lab, command: &[&str], after_ms: u64) -> String {
        alpha.wait_for_node("beta");
        std::thread::scope(|scope| {
            let running = scope.spawn(|| alpha.watari(command).output().unwrap());
            std::thread::sleep(Duration::from_millis(after_ms));
            self.dies(alpha, beta);
            text(&running.join().unwrap().stdout)
        })
    }

    /// It is killed, if it is there; a daemon is started again.
    fn dies(self, alpha: &Lab, beta: &Lab) {
        let pid = self.pid(alpha, beta).and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
        if let Some(pid) = pid {
            // It may just have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        match self {
            Victim::SourceDaemon => drop(alpha.ok(&["up"])),
            Victim::DestinationDaemon => drop(beta.ok(&["up"])),
            _ => {}
        }
    }
}
