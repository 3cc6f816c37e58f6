//! `watari console`

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use watari_node::api::MachineInfo;
use watari_types::{ErrorKind, ErrorReport, MachineName};

use super::Context;
use crate::args::machine_name;
use crate::failure::{Failure, Result};
use crate::output::write_bytes;

/// Use a running machine's serial console; Ctrl-] leaves
#[derive(Args)]
pub(crate) struct Console {
    /// The machine
    name: String,
}

/// Ctrl-].
const LEAVE: u8 = 0x1d;
/// How much of what was printed before is shown.
const RECENT_BYTES: u64 = 4096;
const RECENT_LINES: usize = 24;
/// After the end of input from a pipe, the guest's answer is over when it was silent for so long.
const SILENCE: Duration = Duration::from_secs(1);

impl Console {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let machine: MachineInfo = context.client()?.get(&format!("machines/{name}"))?;
        let instance = machine.instance.as_ref().ok_or_else(|| not_running(&machine.name))?;
        write_bytes(&recent(&machine.serial_log))?;
        let serial = UnixStream::connect(&instance.serial)
            .map_err(|e| Failure::io(&format!("connect to {}", instance.serial.display()), &e))?;
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return join(&serial);
        }
        let _raw = RawTerminal::enter()?;
        join(&serial)
    }
}

fn not_running(name: &MachineName) -> ErrorReport {
    ErrorReport::new(
        ErrorKind::WrongState,
        format!("{name} does not run"),
        format!("`watari start {name}` first"),
    )
}

/// The last lines of a log that may not be there.
fn recent(log: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(RECENT_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(RECENT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    let start = ends.len().checked_sub(RECENT_LINES + 1).map_or(0, |first| ends[first]);
    bytes[start..].to_vec()
}

/// Passes bytes both ways until the user leaves, the machine ends, or piped input and the answer to it are over.
fn join(mut serial: &UnixStream) -> Result<()> {
    let stdin = io::stdin();
    let is_terminal = stdin.is_terminal();
    let mut is_open = true;
    let mut buffer = [0; 4096];
    loop {
        let mut sources = vec![PollFd::new(serial, PollFlags::IN)];
        if is_open {
            sources.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        let limit = Timespec { tv_sec: SILENCE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut sources, (!is_open).then_some(&limit)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(Failure::io("wait for the console", &e.into())),
        }
        let (printed, typed) =
            (!sources[0].revents().is_empty(), sources.get(1).is_some_and(|s| !s.revents().is_empty()));
        if printed {
            let count = serial.read(&mut buffer).map_err(|e| Failure::io("read the console", &e))?;
            if count == 0 {
                return Ok(());
            }
            write_bytes(&buffer[..count])?;
        }
        if typed {
            // Not through std's buffer, which would keep poll from seeing what it holds.
            let count = rustix::io::read(stdin.as_fd(), &mut buffer)
                .map_err(|e| Failure::io("read standard input", &e.into()))?;
            is_open = count > 0;
            let leaves = buffer[..count].iter().position(|byte| is_terminal && *byte == LEAVE);
            serial
                .write_all(&buffer[..leaves.unwrap_or(count)])
                .map_err(|e| Failure::io("write to the console", &e))?;
            if leaves.is_some() || (is_terminal && count == 0) {
                return Ok(());
            }
        }
    }
}

/// A terminal that passes every key on, until dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(|e| Failure::io("ask the terminal", &e.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)
            .map_err(|e| Failure::io("set the terminal", &e.into()))?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_a_long_log_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("serial.log");
        assert_eq!(recent(&log), b"");
        std::fs::write(&log, "one\ntwo").unwrap();
        assert_eq!(recent(&log), b"one\ntwo");
        let lines: Vec<String> = (0..100).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, lines.concat()).unwrap();
        let shown = String::from_utf8(recent(&log)).unwrap();
        assert_eq!(shown.lines().count(), RECENT_LINES);
        assert!(shown.starts_with("line 76\n") && shown.ends_with("line 99\n"));
    }
}
