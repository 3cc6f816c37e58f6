//! What is said before the first message
//! ([authentication](https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol)): who we are, and that memory may be passed.
//!
//! ```text
//!  we    NUL AUTH EXTERNAL 31303030         NEGOTIATE_UNIX_FD                  BEGIN, messages
//!  QEMU                             OK guid                    AGREE_UNIX_FD          messages
//! ```
//!
//! zbus could say it, too; but it takes lines that never end, and panics over one that is empty.

use std::fmt::Write;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zbus::Guid;

/// No line of QEMU's is longer, in bytes: it is `OK` and 32 digits.
const LONGEST: usize = 64;

/// Greets QEMU, as the user that this process is. Returns what QEMU calls itself.
pub(super) async fn greet(socket: &mut UnixStream) -> zbus::Result<Guid<'static>> {
    let user = rustix::process::geteuid().as_raw().to_string();
    let digits = user.bytes().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    socket.write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes()).await?;
    let ok = line(socket).await?;
    let guid = ok.strip_prefix("OK ").ok_or_else(|| refused(&ok))?;
    let guid = Guid::try_from(guid)?.to_owned();
    socket.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
    let agreed = line(socket).await?;
    if agreed != "AGREE_UNIX_FD" {
        return Err(refused(&agreed));
    }
    socket.write_all(b"BEGIN\r\n").await?;
    Ok(guid)
}

/// A line, and no byte of what comes after it: that may be a message already.
async fn line(socket: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < LONGEST {
        line.push(socket.read_u8().await?);
        if let Some(text) = line.strip_suffix(b"\r\n") {
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is too long"))
}

fn refused(line: &str) -> zbus::Error {
    zbus::Error::Handshake(format!("QEMU says {line:?}"))
}
