//! What may be QEMU, over D-Bus. An input is what it does; its first byte says how it begins:
//!
//! | | |
//! | --- | --- |
//! | 0 | it greets, takes a listener, and does to that what follows ([`Act`]); then it hangs up |
//! | 1 | what follows is all that it says |
//! | 2 | it takes a listener, and what follows is all that it says to that one |
//! | 3 | it takes a listener and hangs up on that one |
//!
//! Each call is answered as a [`Reader`] of it would, and what is shown in the end is what that one has: unless there were [bytes that
//! are no call](Act::Bytes), of which nothing is known but that nobody panics, and that it ends.

mod act;
mod qemu;
mod reader;

use std::os::unix::net::UnixStream;

use watari_screen::{Display, Picture};

use super::{Said, last, withstand};

pub(crate) use act::seeds;

pub(super) fn face(input: &[u8]) {
    let mut said = Said(input);
    let begin = said.number(1).unwrap_or(0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (shown, expected) = withstand(async { tokio::join!(shown(ours), qemu::does(theirs, begin, said)) });
    if expected.is_some() {
        assert!(shown == expected, "another picture is shown");
    }
}

/// What a display shows in the end; nothing if it is none.
async fn shown(socket: UnixStream) -> Option<Picture> {
    let display = Display::dbus(socket).await.ok()?;
    Some(last(&display).await)
}
