//! QEMU's display: what a machine shows. QEMU says that over D-Bus, or else over VNC; for whoever looks it is the same.
//!
//! What QEMU says is looked at at once; how fast viewers are is nothing to it.

mod dbus;
mod vnc;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Grid, Picture};
use dbus::Dbus;
use vnc::Vnc;

/// Why a machine's display cannot be used: QEMU is gone, or refused, or speaks otherwise. There is nothing to be done but to connect
/// again.
#[derive(Debug, thiserror::Error)]
#[error("the machine's display does not answer")]
pub struct DisplayError(#[source] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Dbus(#[from] zbus::Error),
    #[error(transparent)]
    Vnc(#[from] vnc::Error),
}

impl<E: Into<Cause>> From<E> for DisplayError {
    fn from(cause: E) -> DisplayError {
        DisplayError(cause.into())
    }
}

/// What a machine shows, for all who look.
pub struct Screen {
    grid: Mutex<Grid>,
    changed: watch::Sender<u64>,
    /// Whether anybody has said what is shown.
    told: watch::Sender<bool>,
}

/// QEMU says what is shown when one has connected; a machine that shows nothing says nothing.
const FIRST_PICTURE: Duration = Duration::from_secs(1);

/// When time began, for all screens: a viewer goes from one to the next.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Screen {
    fn new() -> Screen {
        let grid = Grid::new(Picture::new(640, 480));
        let changed = watch::Sender::new(grid.version());
        Screen { grid: Mutex::new(grid), changed, told: watch::Sender::new(false) }
    }

    /// The time that blocks' changes are noted in, in milliseconds.
    pub fn now() -> u64 {
        BEGAN.elapsed().as_millis() as u64
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
        change(&mut grid, Screen::now());
        let version = grid.version();
        drop(grid);
        self.told.send_replace(true);
        self.changed.send_if_modified(|before| std::mem::replace(before, version) != version);
    }
}

/// A connection to a machine's display. When it is dropped, QEMU tells nobody any more what it shows.
pub struct Display {
    screen: Arc<Screen>,
    qemu: Qemu,
}

/// How QEMU is spoken to.
enum Qemu {
    Dbus(Dbus),
    Vnc(Vnc),
}

impl Display {
    /// Talks to QEMU over `socket`, which it was given as the client of its display, and learns what the machine shows.
    ///
    /// # Errors
    /// [`DisplayError`]; the socket is closed.
    pub async fn dbus(socket: UnixStream) -> Result<Display, DisplayError> {
        let screen = Arc::new(Screen::new());
        let qemu = Qemu::Dbus(Dbus::connect(socket, &screen).await?);
        Ok(Display { screen, qemu }.begun().await)
    }

    /// The same over `socket`, which is connected to QEMU's VNC server.
    ///
    /// # Errors
    /// [`DisplayError`]; the socket is closed.
    pub async fn vnc(socket: UnixStream) -> Result<Display, DisplayError> {
        let screen = Arc::new(Screen::new());
        let qemu = Qemu::Vnc(Vnc::connect(socket, &screen).await?);
        Ok(Display { screen, qemu }.begun().await)
    }

    /// Waits for what is shown now, which QEMU says at once: what there is until then nobody is to see.
    async fn begun(self) -> Display {
        let mut told = self.screen.told.subscribe();
        tokio::select! {
            _ = told.wait_for(|told| *told) => {}
            () = self.closed() => {}
            () = tokio::time::sleep(FIRST_PICTURE) => {}
        }
        self
    }

    /// What it shows.
    pub fn screen(&self) -> &Arc<Screen> {
        &self.screen
    }

    /// Something was done to the machine, by whatever way: it may show that soon.
    pub fn expect_change(&self) {
        match &self.qemu {
            Qemu::Dbus(_) => {}
            Qemu::Vnc(vnc) => vnc.expect_change(),
        }
    }

    /// Whether QEMU is gone, or has hung up.
    pub fn is_closed(&self) -> bool {
        match &self.qemu {
            Qemu::Dbus(dbus) => dbus.is_closed(),
            Qemu::Vnc(vnc) => vnc.is_closed(),
        }
    }

    /// Completes when it is.
    pub async fn closed(&self) {
        match &self.qemu {
            Qemu::Dbus(dbus) => dbus.closed().await,
            Qemu::Vnc(vnc) => vnc.closed().await,
        }
    }
}
