//! Network cards on a bridge of the host's.
//!
//! QEMU itself may start nothing and gain no rights, so its bridge helper is started here: a program that the host's
//! administrator lets plug into some bridges (`/etc/qemu/bridge.conf`: `allow br0`), whoever starts it. What it makes is passed on
//! to QEMU.

use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::Error;

/// Where distributions put it.
const HELPERS: [&str; 3] =
    ["/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper", "/usr/lib/qemu-bridge-helper"];
/// What the administrator allows.
const CONFIGURATION: &str = "/etc/qemu/bridge.conf";
/// The most of what it says that is passed on.
const WORDS: u64 = 500;

/// A new network interface on `bridge`, for [`Launch::taps`](crate::Launch::taps). It is gone when nobody has it open.
///
/// It takes no hints about checksums and long packets (`vnet_hdr`): a guest that was told to use them could not go where there
/// are none.
///
/// # Errors
/// [`Error::Bridge`] with what the helper said.
pub fn plug_into(bridge: &str) -> Result<OwnedFd, Error> {
    let failed = |detail: String| Error::Bridge { bridge: bridge.to_owned(), detail };
    let helper = helper().ok_or_else(|| failed("QEMU's bridge helper is not installed".to_owned()))?;
    let make = || -> io::Result<(Option<OwnedFd>, String)> {
        let (ours, helpers) = UnixStream::pair()?;
        let mut child = Command::new(helper)
            .args([&format!("--br={bridge}"), "--fd=0"])
            .stdin(OwnedFd::from(helpers))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let tap = received(&ours);
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            stderr.take(WORDS).read_to_string(&mut said)?;
        }
        child.wait()?;
        Ok((tap?, said))
    };
    match make() {
        Ok((Some(tap), _)) => Ok(tap),
        Ok((None, said)) => Err(failed(said.trim().to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn helper() -> Option<&'static str> {
    HELPERS.into_iter().find(|path| Path::new(path).exists())
}

/// The bridges that [`plug_into`] may plug into, as far as the administrator's file says so itself (it may name others); nothing
/// if there is no helper.
pub fn bridges_allowed() -> Option<Vec<String>> {
    helper()?;
    let text = std::fs::read_to_string(CONFIGURATION).unwrap_or_default();
    let allowed = text.lines().filter_map(|line| line.trim().strip_prefix("allow "));
    Some(allowed.map(|bridge| bridge.trim().to_owned()).collect())
}

/// The descriptor that is sent over a socket, if one is.
fn received(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}
