//! The daemon's side of a keeper's socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use watari_qemu::{Display, Input};
use watari_types::{ErrorKind, ErrorReport};

use crate::protocol::{Reply, Request};

/// How long a keeper may take to say what it is doing. One that takes longer is stopped or stuck.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// How long one may take over what is done with a keyboard or a pointer: the guest has some seconds, and QEMU some more.
const TOUCH_LIMIT: Duration = Duration::from_secs(20);

/// Asks the keeper behind `socket` and waits for its answer, handing `progress` on as it comes. Blocks.
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    progress: impl FnMut(Value),
) -> Result<T, ErrorReport> {
    let mut stream = UnixStream::connect(socket).map_err(silent)?;
    if matches!(request, Request::Status) {
        // Only this is answered without waiting for anything; other requests may wait for a capture to end.
        stream.set_read_timeout(Some(STATUS_LIMIT)).map_err(silent)?;
    }
    send(&mut stream, request)?;
    read_reply(BufReader::new(stream), progress)
}

/// Has the keeper behind `socket` lend what its guest has: what it says from then on is not for this side.
pub fn begin_lending(socket: &Path) -> Result<UnixStream, ErrorReport> {
    begin::<Value>(socket, &Request::Lend).map(|(_, stream)| stream)
}

/// Asks the keeper behind `socket` for the machine's screen, and returns how that is to be had; over D-Bus it is on the
/// connection.
pub fn open_screen(socket: &Path) -> Result<(Display, UnixStream), ErrorReport> {
    begin(socket, &Request::Screen)
}

/// A way to a machine's keyboard and pointer.
pub struct Touch {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Touch {
    /// Asks the keeper behind `socket` for it.
    pub fn open(socket: &Path) -> Result<Touch, ErrorReport> {
        let (_, to) = begin::<Value>(socket, &Request::Touch)?;
        to.set_read_timeout(Some(TOUCH_LIMIT)).map_err(silent)?;
        let from = BufReader::new(to.try_clone().map_err(silent)?);
        Ok(Touch { to, from })
    }

    /// Does something, and waits until it is done: for some seconds at most if the guest does not take what was done before. After
    /// an error it was not done, if the keeper says so; else ([`ErrorKind::NoKeeper`]) that is not known, and nothing more can be
    /// done this way. Blocks.
    pub fn act(&mut self, input: Input) -> Result<(), ErrorReport> {
        send(&mut self.to, &input)?;
        read_reply::<Value>(&mut self.from, |_| {}).map(drop)
    }
}

/// Asks for what goes on after the reply, on the connection that is returned with it.
fn begin<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<(T, UnixStream), ErrorReport> {
    let mut stream = UnixStream::connect(socket).map_err(silent)?;
    send(&mut stream, request)?;
    // Nothing follows the reply before something was said.
    let reader = stream.try_clone().map_err(silent)?;
    read_reply(BufReader::new(reader), |_| {}).map(|reply| (reply, stream))
}

fn send(stream: &mut UnixStream, what: &impl Serialize) -> Result<(), ErrorReport> {
    let mut line = serde_json::to_vec(what).map_err(|e| garbled(&e))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(silent)
}

/// Reads reply lines until the last one.
pub fn read_reply<T: DeserializeOwned>(
    from: impl BufRead,
    mut progress: impl FnMut(Value),
) -> Result<T, ErrorReport> {
    for line in from.lines() {
        match serde_json::from_str(&line.map_err(silent)?).map_err(|e| garbled(&e))? {
            Reply::Progress(value) => progress(value),
            Reply::Done(value) => return serde_json::from_value(value).map_err(|e| garbled(&e)),
            Reply::Error(report) => return Err(report),
        }
    }
    Err(ErrorReport::new(ErrorKind::NoKeeper, "the machine's keeper ended before it answered", HINT))
}

const HINT: &str = "see keeper.log in the machine's folder; `watari restore NAME` brings the machine back";

fn silent(error: std::io::Error) -> ErrorReport {
    ErrorReport::new(ErrorKind::NoKeeper, format!("the machine's keeper does not answer: {error}"), HINT)
}

fn garbled(error: &serde_json::Error) -> ErrorReport {
    ErrorReport::new(ErrorKind::Internal, format!("the machine's keeper sent what is no answer: {error}"), "")
}
