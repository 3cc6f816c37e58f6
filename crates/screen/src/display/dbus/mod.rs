//! QEMU's display over D-Bus, from peer to peer
//! ([the interfaces](https://www.qemu.org/docs/master/interop/dbus-display.html)).
//!
//! QEMU calls us: it passes the memory that the guest draws into, and says which part of it has changed. We look at that part at
//! once and answer.

mod greeting;
mod listener;
mod surface;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use zbus::Connection;
use zbus::connection::Builder;
use zbus::zvariant::Fd;

use super::Screen;
use greeting::greet;
use listener::{Listener, MapListener};

const CONSOLE: &str = "/org/qemu/Display1/Console_0";
const LISTENER: &str = "/org/qemu/Display1/Listener";

/// A connection to QEMU, and the one that it calls us on. It is one display: what is left when either ends shows nothing, or takes no
/// keys.
pub(super) struct Dbus {
    console: Connection,
    listener: Connection,
}

impl Dbus {
    pub(super) async fn connect(socket: UnixStream, screen: &Arc<Screen>) -> zbus::Result<Dbus> {
        let console = peer(socket).await?.build().await?;
        let (ours, theirs) = UnixStream::pair()?;
        let listener = async {
            let builder = peer(ours).await?.serve_at(LISTENER, Listener::new(screen))?;
            builder.serve_at(LISTENER, MapListener::new(screen))?.build().await
        };
        // QEMU greets on it as soon as it has it, and answers when that is done. Then it alone has it, so that it is noticed when it
        // hangs up.
        let register = async {
            let theirs = theirs;
            let theirs = Fd::from(theirs.as_fd());
            call(&console, "Console", "RegisterListener", &(theirs,)).await
        };
        let (listener, ()) = tokio::try_join!(listener, register)?;
        Ok(Dbus { console, listener })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.console.is_closed() || self.listener.is_closed()
    }

    pub(super) async fn closed(&self) {
        tokio::select! {
            () = self.console.closed() => {}
            () = self.listener.closed() => {}
        }
    }
}

async fn peer(socket: UnixStream) -> zbus::Result<Builder<'static>> {
    socket.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(socket)?;
    let guid = greet(&mut socket).await?;
    Ok(Builder::authenticated_socket(socket, guid)?.p2p())
}

async fn call<T>(console: &Connection, interface: &str, method: &str, what: &T) -> zbus::Result<()>
where
    T: serde::Serialize + zbus::zvariant::DynamicType,
{
    let interface = format!("org.qemu.Display1.{interface}");
    console.call_method(None::<&str>, CONSOLE, Some(interface.as_str()), method, what).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Picture;
    use zbus::Guid;

    /// QEMU waits for no answer when it has drawn.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_drawn_last_is_shown() {
        let screen = Arc::new(Screen::new());
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let qemu = Builder::unix_stream(theirs).server(Guid::generate()).unwrap().p2p();
        let listener = async { peer(ours).await?.serve_at(LISTENER, Listener::new(&screen))?.build().await };
        let (qemu, _listener) = tokio::try_join!(qemu.build(), listener).unwrap();
        let mut wanted = Picture::new(640, 480);
        for turn in 0..2000_u32 {
            let colour = turn * 40;
            let body = (0, 0, 1, 1, 4_u32, 0x2002_0888_u32, colour.to_le_bytes().to_vec());
            let call = zbus::Message::method_call(LISTENER, "Update").unwrap();
            let call = call.interface("org.qemu.Display1.Listener").unwrap().build(&body).unwrap();
            qemu.send(&call).await.unwrap();
            wanted.row_mut(0, 0, 1)[0] = colour;
        }
        let answered = qemu.call_method(
            None::<&str>,
            LISTENER,
            Some("org.qemu.Display1.Listener"),
            "MouseSet",
            &(0, 0, 0),
        );
        answered.await.unwrap();
        assert!(screen.see(|grid| *grid.picture() == wanted));
    }
}
