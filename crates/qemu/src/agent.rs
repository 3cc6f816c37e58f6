//! The guest's agent: a program inside the machine that answers while the guest is well.
//!
//! The protocol: <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>. What is in the channel may be
//! half an answer to somebody who is gone, so every connection begins with `guest-sync-delimited`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::Error;
use crate::channel::{connect_by, remaining};
use crate::error::excerpt;

const PEER: &str = "the guest agent";
/// A longer answer is a guest's attempt to fill the host's memory.
const LINE_LIMIT: u64 = 1 << 20;
/// What the agent puts before its answer to `guest-sync-delimited`; it never occurs in JSON.
const DELIMITER: u8 = 0xff;

/// A connection to the agent of one guest. QEMU accepts one at a time.
pub struct Agent {
    reader: BufReader<UnixStream>,
}

impl Agent {
    /// Connects to the agent's socket and waits until the agent answers.
    ///
    /// # Errors
    /// [`Error::Connect`] if there is no socket, [`Error::TimedOut`] if no agent answers by the deadline: none
    /// is installed, or the guest is still booting, or it hangs.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Agent, Error> {
        let mut agent = Agent { reader: BufReader::new(connect_by(path, deadline)?) };
        let token = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.subsec_nanos());
        agent.send("guest-sync-delimited", json!({"id": token}), Some(DELIMITER), deadline)?;
        loop {
            agent.read_until(DELIMITER, "guest-sync-delimited", deadline)?;
            let line = agent.read_until(b'\n', "guest-sync-delimited", deadline)?;
            let answer: Option<Value> = serde_json::from_slice(&line).ok();
            if answer.as_ref().and_then(|answer| answer.get("return")) == Some(&json!(token)) {
                return Ok(agent);
            }
        }
    }

    /// Asks the agent for one thing.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::TimedOut`], [`Error::Closed`] or [`Error::BadAnswer`]. After any but the
    /// first, answers and questions may no longer match: connect again.
    pub fn execute(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value, Error> {
        let deadline = Instant::now() + limit;
        self.send(command, arguments, None, deadline)?;
        let line = self.read_until(b'\n', command, deadline)?;
        let text = String::from_utf8_lossy(&line);
        let bad = || Error::BadAnswer { peer: PEER, command: command.to_owned(), answer: excerpt(&text) };
        let mut answer: Value = serde_json::from_str(&text).map_err(|_| bad())?;
        if let Some(error) = answer.get("error") {
            let detail = excerpt(error.get("desc").and_then(Value::as_str).unwrap_or(&text));
            return Err(Error::Refused { peer: PEER, command: command.to_owned(), detail });
        }
        answer.get_mut("return").map(Value::take).ok_or_else(bad)
    }

    /// Whether the agent answers.
    ///
    /// # Errors
    /// Those of [`Agent::execute`].
    pub fn ping(&mut self, limit: Duration) -> Result<(), Error> {
        self.execute("guest-ping", json!({}), limit).map(drop)
    }

    /// Sets the guest's clock.
    ///
    /// # Errors
    /// Those of [`Agent::execute`].
    pub fn set_time(&mut self, now: SystemTime, limit: Duration) -> Result<(), Error> {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanoseconds = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        self.execute("guest-set-time", json!({"time": nanoseconds}), limit).map(drop)
    }

    /// The guest's clock.
    ///
    /// # Errors
    /// Those of [`Agent::execute`].
    pub fn time(&mut self, limit: Duration) -> Result<SystemTime, Error> {
        let answer = self.execute("guest-get-time", json!({}), limit)?;
        answer.as_u64().map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)).ok_or_else(|| {
            Error::BadAnswer {
                peer: PEER,
                command: String::from("guest-get-time"),
                answer: excerpt(&answer.to_string()),
            }
        })
    }

    /// Asks the guest to power off. It does not answer; a `SHUTDOWN` event from the monitor does.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::TimedOut`] if the request could not be sent.
    pub fn shutdown(&mut self, limit: Duration) -> Result<(), Error> {
        self.send("guest-shutdown", json!({"mode": "powerdown"}), None, Instant::now() + limit)
    }

    /// `lead` comes before the command; [`DELIMITER`] makes the agent forget the half of a line it may have.
    fn send(
        &mut self,
        command: &str,
        arguments: Value,
        lead: Option<u8>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut line: Vec<u8> = lead.into_iter().collect();
        line.extend(json!({"execute": command, "arguments": arguments}).to_string().bytes());
        line.push(b'\n');
        let limit = remaining(deadline);
        let mut stream = self.reader.get_ref();
        let sent = stream.set_write_timeout(Some(limit)).and_then(|()| stream.write_all(&line));
        sent.map_err(|error| channel_error(&error, command, limit))
    }

    /// Everything up to and without `end`.
    fn read_until(&mut self, end: u8, command: &str, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut taken = Vec::new();
        loop {
            let limit = remaining(deadline);
            let set = self.reader.get_ref().set_read_timeout(Some(limit));
            let room = LINE_LIMIT.saturating_sub(taken.len() as u64);
            let read = set.and_then(|()| self.reader.by_ref().take(room).read_until(end, &mut taken));
            match read {
                _ if taken.last() == Some(&end) => {
                    taken.pop();
                    return Ok(taken);
                }
                Ok(0) => {
                    let reason =
                        if room == 0 { "its answer does not end" } else { "it closed the connection" };
                    return Err(Error::Closed { peer: PEER, reason: reason.to_owned() });
                }
                Ok(_) => {}
                Err(error) => return Err(channel_error(&error, command, limit)),
            }
        }
    }
}

fn channel_error(error: &std::io::Error, command: &str, limit: Duration) -> Error {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            Error::TimedOut { peer: PEER, command: command.to_owned(), limit }
        }
        _ => Error::Closed { peer: PEER, reason: error.to_string() },
    }
}
