//! QEMU's display over VNC: for a QEMU that does not have D-Bus.
//!
//! ```text
//!            ┌─ hear ──► Canvas ── complete ──► Screen
//!  QEMU ◄────┤           one request for what changes next is always with QEMU
//!            └─ tell ◄── nudges
//! ```
//!
//! QEMU looks at what the guest shows every 30 ms, and by 50 ms later each time when nothing had changed, up to 3 s; whatever it takes
//! as input begins that anew. So it is nudged: often for a while after something has changed or was done, else now and then.

mod canvas;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Screen;
use crate::Rect;
use canvas::Canvas;

/// So much is read at once, in bytes: a picture has millions.
const AT_ONCE: usize = 256 << 10;
/// How long QEMU may take to greet.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two nudges, for [`LIVELY`] after something has changed or was done; and after that. QEMU takes no notice of more than one
/// in 30 ms.
const OFTEN: Duration = Duration::from_millis(20);
const NOW_AND_THEN: Duration = Duration::from_millis(250);
const LIVELY: Duration = Duration::from_secs(1);

/// What is wrong with QEMU's VNC server, or with what it is asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection to QEMU's VNC server has ended")]
    Io(#[from] io::Error),
    #[error("QEMU's VNC server did not greet within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("what should be QEMU's VNC server does not speak RFB 3.8")]
    Version,
    #[error("QEMU's VNC server wants to know who asks")]
    Secured,
    #[error("QEMU's VNC server lets nobody in")]
    Refused,
    #[error("a screen cannot have {width} × {height} pixels")]
    Size { width: u16, height: u16 },
    #[error("{0:?} is not within the screen")]
    Outside(Rect),
    #[error("a picture in an encoding that was not asked for: {0}")]
    Encoding(i32),
    #[error("a message that nobody knows: {0}")]
    Message(u8),
    #[error("a text of {0} bytes")]
    TooLong(u32),
}

/// A connection to QEMU's VNC server.
pub(super) struct Vnc {
    line: Arc<Line>,
    open: watch::Receiver<()>,
    task: JoinHandle<()>,
}

/// What QEMU is told.
struct Line {
    to: OwnedWriteHalf,
    /// Something was done to the machine.
    done: Notify,
}

impl Vnc {
    pub(super) async fn connect(socket: UnixStream, screen: &Arc<Screen>) -> Result<Vnc, Error> {
        socket.set_nonblocking(true)?;
        let (from, to) = tokio::net::UnixStream::from_std(socket)?.into_split();
        let (mut from, mut to) = (BufReader::with_capacity(AT_ONCE, from), to);
        let greeted = timeout(PATIENCE, wire::greet(&mut from, &mut to)).await;
        let canvas = greeted.map_err(|_| Error::Silent)??;
        let (line, screen) = (Arc::new(Line { to, done: Notify::new() }), Arc::clone(screen));
        let (opened, open) = watch::channel(());
        let task = tokio::spawn({
            let line = Arc::clone(&line);
            async move {
                let error = tokio::select! {
                    error = show(from, canvas, &line, &screen) => error,
                    error = keep_awake(&line, &screen) => error,
                };
                if !matches!(error, Error::Io(_)) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a display is given up");
                }
                drop(opened);
            }
        });
        Ok(Vnc { line, open, task })
    }

    /// Something was done to the machine.
    pub(super) fn expect_change(&self) {
        self.line.done.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open.has_changed().is_err()
    }

    pub(super) async fn closed(&self) {
        // Nothing is ever sent: it fails when the other end is gone.
        let _ = self.open.clone().changed().await;
    }
}

impl Drop for Vnc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// Says all of `message`, or, for whoever stops waiting, nothing.
    async fn tell(&self, message: &[u8]) -> Result<(), Error> {
        loop {
            self.to.writable().await?;
            match self.to.try_write(message) {
                Ok(length) if length == message.len() => return Ok(()),
                // So few bytes go into a socket at once, or not at all.
                Ok(_) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Shows what QEMU says, until that is an error.
async fn show(mut from: BufReader<OwnedReadHalf>, mut canvas: Canvas, line: &Line, screen: &Screen) -> Error {
    let mut is_all = true;
    loop {
        if let Err(error) = line.tell(&wire::request(&canvas, is_all)).await {
            return error;
        }
        match wire::hear(&mut from, &mut canvas).await {
            Ok(()) => {
                canvas.show(screen);
                // Of a screen that has become another one QEMU would not tell what is black.
                is_all = canvas.is_new();
            }
            Err(error) => return error,
        }
    }
}

/// Nudges QEMU, until that is an error.
async fn keep_awake(line: &Line, screen: &Screen) -> Error {
    let mut changes = screen.changes();
    let mut lively_until = Instant::now() + LIVELY;
    loop {
        let pause = if Instant::now() < lively_until { OFTEN } else { NOW_AND_THEN };
        tokio::select! {
            // The screen outlives this.
            _ = changes.changed() => lively_until = Instant::now() + LIVELY,
            () = line.done.notified() => lively_until = Instant::now() + LIVELY,
            () = sleep(pause) => if let Err(error) = line.tell(&wire::nudge()).await {
                return error;
            }
        }
    }
}
