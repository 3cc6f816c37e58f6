//! `watari console`

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use watari_keeper::record::Phase;
use watari_node::api::{ConsoleNews, MachineInfo};
use watari_types::{ErrorKind, ErrorReport, MachineName};

use super::Context;
use crate::args::machine_name;
use crate::client::{broken, parse};
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
const RECENT_LINES: usize = 24;
/// After the end of input from a pipe, the guest's answer is over when it was silent for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// So much is typed or piped at once, in bytes.
const MOST_TYPED: usize = 4096;

type Socket = WebSocketStream<UnixStream>;

impl Console {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let client = context.client()?;
        let machine: MachineInfo = client.get(&format!("machines/{name}"))?;
        if machine.instance.is_none() {
            return Err(not_running(&machine.name).into());
        }
        let is_terminal = io::stdin().is_terminal();
        let _raw = is_terminal.then(RawTerminal::enter).transpose()?;
        client.converse(&format!("machines/{name}/console"), async |socket| join(socket, is_terminal).await)
    }
}

fn not_running(name: &MachineName) -> ErrorReport {
    ErrorReport::new(
        ErrorKind::WrongState,
        format!("{name} does not run"),
        format!("`watari start {name}` first"),
    )
}

/// Passes bytes both ways until the user leaves, the machine ends, or piped input and the answer to it are over.
async fn join(mut socket: Socket, is_terminal: bool) -> Result<()> {
    let (mut typed, mut is_open, mut ear) = (keys(), true, Ear::default());
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(said) => {
                    if ear.hear(said.map_err(|e| broken(&e))?)? {
                        break;
                    }
                }
                None => break,
            },
            keys = typed.recv(), if is_open => {
                let keys = keys.unwrap_or_else(|| Ok(Bytes::new()));
                let keys = keys.map_err(|e| Failure::io("read standard input", &e))?;
                let leaves = keys.iter().position(|byte| is_terminal && *byte == LEAVE);
                is_open = !keys.is_empty();
                let keys = keys.slice(..leaves.unwrap_or(keys.len()));
                if !keys.is_empty() {
                    socket.send(Message::Binary(keys)).await.map_err(|e| broken(&e))?;
                }
                if leaves.is_some() || (is_terminal && !is_open) {
                    break;
                }
            }
            () = tokio::time::sleep(SILENCE), if !is_open => break,
        }
    }
    // What was typed is before it on the way. A daemon that is gone is not to be told.
    let _ = socket.close(None).await;
    Ok(())
}

/// What comes from standard input, in pieces of which an empty one is the end. Read by a thread of its own, as nothing else reads
/// terminals, pipes and files alike without waiting.
fn keys() -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        let mut buffer = [0; MOST_TYPED];
        loop {
            let read = match rustix::io::read(io::stdin().as_fd(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => continue,
                read => read.map(|count| Bytes::copy_from_slice(&buffer[..count])).map_err(io::Error::from),
            };
            let is_over = read.as_ref().map_or(true, Bytes::is_empty);
            if sender.blocking_send(read).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

/// What was heard of a console so far.
#[derive(Default)]
struct Ear {
    /// The next bytes were printed before.
    is_recent: bool,
    was_connected: bool,
}

impl Ear {
    /// Shows what the machine prints. Returns whether it has ended.
    fn hear(&mut self, said: Message) -> Result<bool> {
        match said {
            Message::Binary(printed) => {
                let is_recent = std::mem::take(&mut self.is_recent);
                write_bytes(if is_recent { last_lines(&printed) } else { &printed })?;
            }
            Message::Text(news) => match parse(news.as_bytes())? {
                ConsoleNews::Begin { skipped: 0 } => self.is_recent = true,
                // A terminal that passes every key on needs the return as well. Who cannot be told does not want to know.
                ConsoleNews::Begin { skipped } => {
                    let _ = write!(io::stderr(), "\r\n[{skipped} bytes are left out here]\r\n");
                }
                ConsoleNews::State(state) => {
                    let runs = matches!(state.phase, Phase::Running | Phase::Paused);
                    if !state.connected && (self.was_connected || !runs) {
                        return Ok(true);
                    }
                    self.was_connected = state.connected;
                }
            },
            _ => {}
        }
        Ok(false)
    }
}

/// The last lines of what was printed before.
fn last_lines(bytes: &[u8]) -> &[u8] {
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    let start = ends.len().checked_sub(RECENT_LINES + 1).map_or(0, |first| ends[first]);
    &bytes[start..]
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
    fn only_the_last_lines_of_what_was_printed_before_are_shown() {
        assert_eq!(last_lines(b""), b"");
        assert_eq!(last_lines(b"one\ntwo"), b"one\ntwo");
        let lines: Vec<String> = (0..100).map(|line| format!("line {line}\n")).collect();
        let lines = lines.concat();
        let shown = std::str::from_utf8(last_lines(lines.as_bytes())).unwrap();
        assert_eq!(shown.lines().count(), RECENT_LINES);
        assert!(shown.starts_with("line 76\n") && shown.ends_with("line 99\n"));
    }
}
