//! The monitor's channel: commands go out, answers and events come in, nothing waits for ever.
//!
//! One thread reads the socket and hands every answer to whoever waits for its id, and every event to all who
//! listen. It ends when the socket does, or when the last [`Monitor`] is dropped. QEMU serves one client at a
//! time, so there is one `Monitor` per process, cloned as often as needed.
//!
//! The protocol: <https://www.qemu.org/docs/master/interop/qmp-spec.html>.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::error::excerpt;
use crate::{Error, Version};

const PEER: &str = "QEMU";
/// A longer line is not QEMU's; its longest answers are some hundred kilobytes.
const LINE_LIMIT: u64 = 16 << 20;
/// How long QEMU may not take in what is sent to it.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How often a socket that is not there yet is tried: it appears some 30 ms after the process.
const CONNECT_RETRY: Duration = Duration::from_millis(2);

/// Something that happened to the machine, as QEMU reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// QEMU's name of it: `SHUTDOWN`, `STOP`, `BLOCK_IO_ERROR`, `DEVICE_DELETED`, …
    pub name: String,
    /// Its details; an empty object where there are none.
    pub data: Value,
    /// When it happened.
    pub at: SystemTime,
}

/// The monitor of one QEMU process (QMP). Clones share the connection.
#[derive(Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<UnixStream>,
    next_id: AtomicU64,
    shared: Arc<Mutex<Shared>>,
    version: Version,
}

/// What goes with a command, or ends the wait for its answer.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    /// An event that says as much as an answer would: null is the answer then.
    pub(crate) enough: Option<&'static str>,
    /// A descriptor of which QEMU gets a copy.
    pub(crate) descriptor: Option<BorrowedFd<'a>>,
}

/// What the reading thread and the callers have in common.
#[derive(Default)]
struct Shared {
    waiting: HashMap<u64, Waiting>,
    listeners: Vec<Sender<Event>>,
    ended: Option<String>,
}

type Answer = Result<Value, String>;

struct Waiting {
    sender: Sender<Answer>,
    /// An event that says as much as an answer would.
    enough: Option<&'static str>,
}

impl Monitor {
    /// Connects to the monitor's socket, which may not exist yet, and waits until the machine is built.
    ///
    /// # Errors
    /// [`Error::Connect`] if nothing listens by the deadline, [`Error::Closed`] if what listens ends the
    /// connection or does not speak QMP, [`Error::TimedOut`] if it says nothing.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Monitor, Error> {
        let stream = connect_by(path, deadline)?;
        let failed = |source| Error::Connect { path: path.to_owned(), source };
        let limit = remaining(deadline);
        stream.set_read_timeout(Some(limit)).map_err(failed)?;
        stream.set_write_timeout(Some(WRITE_LIMIT)).map_err(failed)?;
        let mut reader = BufReader::new(stream.try_clone().map_err(failed)?);
        let greeting = read_message(&mut reader).map_err(|reason| greeting_error(reason, limit))?;
        let version = greeting_version(&greeting).ok_or_else(|| Error::BadAnswer {
            peer: PEER,
            command: String::from("a new connection"),
            answer: excerpt(&greeting.to_string()),
        })?;
        stream.set_read_timeout(None).map_err(failed)?;

        let shared = Arc::new(Mutex::new(Shared::default()));
        let for_reader = Arc::clone(&shared);
        thread::Builder::new()
            .name(String::from("qmp-reader"))
            .spawn(move || read_all(reader, &for_reader))
            .map_err(|source| Error::Prepare { what: String::from("a thread"), source })?;
        let inner = Inner { writer: Mutex::new(stream), next_id: AtomicU64::new(1), shared, version };
        let monitor = Monitor { inner: Arc::new(inner) };
        monitor.execute("qmp_capabilities", json!({}), remaining(deadline))?;
        Ok(monitor)
    }

    /// The version of the QEMU at the other end.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// Sends a command and waits for its answer; other threads' commands may be under way at the same time.
    ///
    /// # Errors
    /// [`Error::Refused`] with QEMU's reason; [`Error::TimedOut`] if there is no answer within `limit` (the
    /// command may still be carried out); [`Error::Closed`] if QEMU is gone.
    pub fn execute(&self, command: &str, arguments: Value, limit: Duration) -> Result<Value, Error> {
        self.execute_with(command, arguments, limit, Extra::default())
    }

    /// The same, with what few commands need.
    pub(crate) fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
        Extra { enough, descriptor }: Extra,
    ) -> Result<Value, Error> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        {
            let mut shared = lock(&self.inner.shared);
            if shared.ended.is_some() {
                return Err(closed(&shared));
            }
            shared.waiting.insert(id, Waiting { sender, enough });
        }
        let mut request = json!({"execute": command, "id": id});
        // QEMU takes its monitor's input byte by byte, a few microseconds each, and some of it in the pause.
        if arguments.as_object().is_none_or(|fields| !fields.is_empty()) {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string();
        line.push('\n');
        let outcome = match self.send(&line, descriptor) {
            Ok(()) => answer.recv_timeout(limit),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let mut shared = lock(&self.inner.shared);
        shared.waiting.remove(&id);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(detail)) => Err(Error::Refused { peer: PEER, command: command.to_owned(), detail }),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::TimedOut { peer: PEER, command: command.to_owned(), limit })
            }
            Err(RecvTimeoutError::Disconnected) => Err(closed(&shared)),
        }
    }

    /// Half a command would spoil the next one, so a failure ends the connection.
    fn send(&self, line: &str, descriptor: Option<BorrowedFd>) -> std::io::Result<()> {
        let mut stream = lock(&self.inner.writer);
        let passed = descriptor.map_or(Ok(0), |descriptor| pass(&stream, line, descriptor));
        let sent = passed.and_then(|passed| stream.write_all(&line.as_bytes()[passed..]));
        if sent.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        sent
    }

    /// Everything that happens to the machine from now on. The channel ends when QEMU does.
    pub fn events(&self) -> Receiver<Event> {
        let (sender, receiver) = mpsc::channel();
        let mut shared = lock(&self.inner.shared);
        if shared.ended.is_none() {
            shared.listeners.push(sender);
        }
        receiver
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Ends the reading thread, which sits in a read on the same socket.
        let _ = lock(&self.writer).shutdown(Shutdown::Both);
    }
}

/// Sends a descriptor with the beginning of a line. Returns how much of it went along.
fn pass(stream: &UnixStream, line: &str, descriptor: BorrowedFd) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    Ok(sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::empty())?)
}

/// Connects to a socket that a starting process may not have made yet.
pub(crate) fn connect_by(path: &Path, deadline: Instant) -> Result<UnixStream, Error> {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(source) if Instant::now() >= deadline => {
                return Err(Error::Connect { path: path.to_owned(), source });
            }
            Err(_) => thread::sleep(CONNECT_RETRY),
        }
    }
}

/// The time left; never zero, which sockets would take for "no limit".
pub(crate) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// A panic while the lock was held leaves nothing half done in what these locks protect.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed(shared: &Shared) -> Error {
    let reason = shared.ended.clone().unwrap_or_else(|| String::from("it takes in no more commands"));
    Error::Closed { peer: PEER, reason }
}

enum ReadError {
    TimedOut,
    Ended(String),
}

fn greeting_error(error: ReadError, limit: Duration) -> Error {
    match error {
        ReadError::TimedOut => {
            Error::TimedOut { peer: PEER, command: String::from("a new connection"), limit }
        }
        ReadError::Ended(reason) => Error::Closed { peer: PEER, reason },
    }
}

fn read_message(reader: &mut BufReader<UnixStream>) -> Result<Value, ReadError> {
    let mut line = Vec::new();
    let read = reader.take(LINE_LIMIT).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Err(ReadError::Ended(String::from("it closed the connection"))),
        Ok(_) => serde_json::from_slice(&line).map_err(|error| {
            let line = excerpt(&String::from_utf8_lossy(&line));
            ReadError::Ended(format!("it sent {line:?}, which is not QMP: {error}"))
        }),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            Err(ReadError::TimedOut)
        }
        Err(error) => Err(ReadError::Ended(error.to_string())),
    }
}

fn greeting_version(greeting: &Value) -> Option<Version> {
    let numbers = greeting.get("QMP")?.get("version")?.get("qemu")?;
    let number = |name| numbers.get(name)?.as_u64()?.try_into().ok();
    Some(Version { major: number("major")?, minor: number("minor")?, micro: number("micro")? })
}

fn read_all(mut reader: BufReader<UnixStream>, shared: &Mutex<Shared>) {
    let reason = loop {
        match read_message(&mut reader) {
            Ok(message) => deliver(&message, &mut lock(shared)),
            Err(ReadError::TimedOut) => {}
            Err(ReadError::Ended(reason)) => break reason,
        }
    };
    let _ = reader.get_ref().shutdown(Shutdown::Both);
    let mut shared = lock(shared);
    shared.ended = Some(reason);
    shared.waiting.clear();
    shared.listeners.clear();
}

fn deliver(message: &Value, shared: &mut Shared) {
    if let Some(event) = parse_event(message) {
        tracing::debug!(event = event.name, "QEMU event");
        shared.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        let seen = |waiting: &Waiting| waiting.enough.is_some_and(|enough| enough == event.name);
        for (_, waiting) in shared.waiting.extract_if(|_, waiting| seen(waiting)) {
            let _ = waiting.sender.send(Ok(Value::Null));
        }
        return;
    }
    let answer = match (message.get("return"), message.get("error")) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some(error)) => {
            let description = error.get("desc").and_then(Value::as_str);
            Err(description.map_or_else(|| excerpt(&error.to_string()), str::to_owned))
        }
        (None, None) => return,
    };
    let id = message.get("id").and_then(Value::as_u64);
    // Nobody waits for an answer that came after its time limit.
    if let Some(waiting) = id.and_then(|id| shared.waiting.remove(&id)) {
        let _ = waiting.sender.send(answer);
    }
}

fn parse_event(message: &Value) -> Option<Event> {
    let name = message.get("event")?.as_str()?.to_owned();
    let data = message.get("data").cloned().unwrap_or_else(|| json!({}));
    let stamp = |field| message.get("timestamp")?.get(field)?.as_u64();
    let since_1970 = Duration::from_secs(stamp("seconds").unwrap_or(0))
        .saturating_add(Duration::from_micros(stamp("microseconds").unwrap_or(0)));
    let at = SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Event { name, data, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_answers_who_waits_for_it_and_the_answer_that_follows_is_nobodys() {
        let mut shared = Shared::default();
        let mut wait = |id, enough| {
            let (sender, answer) = mpsc::channel();
            shared.waiting.insert(id, Waiting { sender, enough });
            answer
        };
        let (seen, other) = (wait(1, Some("RESUME")), wait(2, None));
        deliver(&json!({"event": "STOP"}), &mut shared);
        assert!(seen.try_recv().is_err());
        deliver(&json!({"event": "RESUME"}), &mut shared);
        assert_eq!(seen.try_recv(), Ok(Ok(Value::Null)));
        assert!(other.try_recv().is_err());
        deliver(&json!({"return": {}, "id": 1}), &mut shared);
        deliver(&json!({"error": {"desc": "no"}, "id": 2}), &mut shared);
        assert_eq!(other.try_recv(), Ok(Err(String::from("no"))));
        assert!(shared.waiting.is_empty());
    }
}
