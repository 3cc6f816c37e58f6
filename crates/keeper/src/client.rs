//! The daemon's side of a keeper's socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use watari_qemu::Display;
use watari_types::{ErrorKind, ErrorReport};

use crate::protocol::{Reply, Request};

/// How long a keeper may take to say what it is doing. One that takes longer is stopped or stuck.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

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
    let mut line = serde_json::to_vec(request).map_err(|e| garbled(&e))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(silent)?;
    read_reply(stream, progress)
}

/// Has the keeper behind `socket` lend what its guest has: what it says from then on is not for this side.
pub fn begin_lending(socket: &Path) -> Result<UnixStream, ErrorReport> {
    let mut stream = UnixStream::connect(socket).map_err(silent)?;
    let mut line = serde_json::to_vec(&Request::Lend).map_err(|e| garbled(&e))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(silent)?;
    // Nothing follows the reply before something was wanted.
    let reader = stream.try_clone().map_err(silent)?;
    read_reply::<Value>(reader, |_| {}).map(|_| stream)
}

/// Asks the keeper behind `socket` for the machine's screen, and returns how that is to be had; over D-Bus it is on the
/// connection.
pub fn open_screen(socket: &Path) -> Result<(Display, UnixStream), ErrorReport> {
    let mut stream = UnixStream::connect(socket).map_err(silent)?;
    let mut line = serde_json::to_vec(&Request::Screen).map_err(|e| garbled(&e))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(silent)?;
    // Nothing follows the reply before something was said.
    let reader = stream.try_clone().map_err(silent)?;
    read_reply(reader, |_| {}).map(|display| (display, stream))
}

/// Reads reply lines until the last one.
pub fn read_reply<T: DeserializeOwned>(
    from: impl std::io::Read,
    mut progress: impl FnMut(Value),
) -> Result<T, ErrorReport> {
    for line in BufReader::new(from).lines() {
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
