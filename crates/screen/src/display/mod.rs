//! QEMU's display: what a machine shows, and its keyboard and pointer, over D-Bus from peer to peer
//! ([the interfaces](https://www.qemu.org/docs/master/interop/dbus-display.html)).
//!
//! QEMU calls us: it passes the memory that the guest draws into, and says which part of it has changed. We look at that part at
//! once and answer; how fast viewers are is nothing to it.

mod listener;
mod surface;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::zvariant::Fd;

use crate::{Grid, Picture};
use listener::{Listener, MapListener};

const CONSOLE: &str = "/org/qemu/Display1/Console_0";
const LISTENER: &str = "/org/qemu/Display1/Listener";

/// Why a machine's display cannot be used: QEMU is gone, or refused, or speaks otherwise. There is nothing to be done but to connect
/// again.
#[derive(Debug, thiserror::Error)]
#[error("the machine's display does not answer")]
pub struct DisplayError(#[from] zbus::Error);

impl From<std::io::Error> for DisplayError {
    fn from(error: std::io::Error) -> DisplayError {
        DisplayError(error.into())
    }
}

/// What a machine shows, for all who look.
pub struct Screen {
    grid: Mutex<Grid>,
    changed: watch::Sender<u64>,
    began: Instant,
}

impl Screen {
    fn new() -> Screen {
        let grid = Grid::new(Picture::new(640, 480));
        let changed = watch::Sender::new(grid.version());
        Screen { grid: Mutex::new(grid), changed, began: Instant::now() }
    }

    /// The time that blocks' changes are noted in, in milliseconds.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Lets `look` see it. Whoever draws waits meanwhile: what takes long is done with a copy.
    pub fn see<T>(&self, look: impl FnOnce(&Grid) -> T) -> T {
        look(&self.grid.lock())
    }

    /// Tells when it has become another one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Grid, u64)) {
        let mut grid = self.grid.lock();
        change(&mut grid, self.now());
        let version = grid.version();
        drop(grid);
        self.changed.send_if_modified(|before| std::mem::replace(before, version) != version);
    }
}

/// A pointer's button, as QEMU numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Button {
    /// The left one.
    Left = 0,
    /// The middle one.
    Middle = 1,
    /// The right one.
    Right = 2,
    /// One step of the wheel, away from the hand.
    WheelUp = 3,
    /// One step of the wheel, towards the hand.
    WheelDown = 4,
    /// The one at the side.
    Side = 5,
    /// And the other.
    Extra = 6,
}

/// A connection to a machine's display. When it is dropped, QEMU tells nobody any more what it shows.
pub struct Display {
    screen: Arc<Screen>,
    console: Connection,
    _listener: Connection,
}

impl Display {
    /// Talks to QEMU over `socket`, which it was given as the client of its display, and learns what the machine shows.
    ///
    /// # Errors
    /// [`DisplayError`]; the socket is closed.
    pub async fn open(socket: UnixStream) -> Result<Display, DisplayError> {
        let console = peer(socket)?.build().await?;
        let (ours, theirs) = UnixStream::pair()?;
        let screen = Arc::new(Screen::new());
        let listener = peer(ours)?
            .serve_at(LISTENER, Listener::new(&screen))?
            .serve_at(LISTENER, MapListener::new(&screen))?;
        // QEMU greets on it as soon as it has it, and answers when that is done.
        let register = async {
            let theirs = Fd::from(theirs.as_fd());
            call(&console, "Console", "RegisterListener", &(theirs,)).await
        };
        let (listener, registered) = tokio::join!(listener.build(), register);
        registered?;
        Ok(Display { screen, console, _listener: listener? })
    }

    /// What it shows.
    pub fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    /// Presses a key, or lets go of it: by its place on the keyboard, as
    /// [QEMU numbers them](https://gitlab.com/keycodemap/keycodemapdb) (`qnum`).
    ///
    /// # Errors
    /// [`DisplayError`].
    pub async fn key(&self, qnum: u32, is_down: bool) -> Result<(), DisplayError> {
        self.tell("Keyboard", if is_down { "Press" } else { "Release" }, &qnum).await
    }

    /// Presses a button of the pointer, or lets go of it.
    ///
    /// # Errors
    /// [`DisplayError`].
    pub async fn button(&self, button: Button, is_down: bool) -> Result<(), DisplayError> {
        self.tell("Mouse", if is_down { "Press" } else { "Release" }, &(button as u32)).await
    }

    /// Puts the pointer on a pixel.
    ///
    /// # Errors
    /// [`DisplayError`]; that is so for a machine whose pointer only knows how far it was moved.
    pub async fn point(&self, x: u32, y: u32) -> Result<(), DisplayError> {
        self.tell("Mouse", "SetAbsPosition", &(x, y)).await
    }

    /// Moves the pointer by so many pixels.
    ///
    /// # Errors
    /// [`DisplayError`]; that is so for a machine whose pointer only knows where it is.
    pub async fn shift(&self, right: i32, down: i32) -> Result<(), DisplayError> {
        self.tell("Mouse", "RelMotion", &(right, down)).await
    }

    async fn tell<T>(&self, interface: &str, method: &str, what: &T) -> Result<(), DisplayError>
    where
        T: serde::Serialize + zbus::zvariant::DynamicType,
    {
        Ok(call(&self.console, interface, method, what).await?)
    }
}

fn peer(socket: UnixStream) -> std::io::Result<Builder<'static>> {
    socket.set_nonblocking(true)?;
    Ok(Builder::unix_stream(tokio::net::UnixStream::from_std(socket)?).p2p())
}

async fn call<T>(console: &Connection, interface: &str, method: &str, what: &T) -> zbus::Result<()>
where
    T: serde::Serialize + zbus::zvariant::DynamicType,
{
    let interface = format!("org.qemu.Display1.{interface}");
    console.call_method(None::<&str>, CONSOLE, Some(interface.as_str()), method, what).await.map(drop)
}
