//! The one who is connected to QEMU for all who use a console.
//!
//! ```text
//!            somebody comes                    the machine runs
//!   (none) ────────────────► nothing there ──────────────────────► connected ──► what is printed, what is typed
//!     ▲                        │       ▲                            │   │
//!     │                        │       └──── that run is over ──────┘   │
//!     └────────────────────────┴───────────── all have left ────────────┘
//! ```
//!
//! QEMU gives what the guest prints to who is connected, and then writes it to the log. It serves one connection at a time, and takes
//! on the next at its own pace; what it prints until then is only logged. So the log is followed until something comes over the
//! connection, and then it is found where in the log that begins.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use rustix::io::ioctl_fionread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::log::{Log, Logged, seam};
use super::recent::{RECENT, Recent};
use super::{Console, Line, Place};
use crate::api::ConsoleState;

/// How often it is looked whether a machine runs by now, what it is doing, and what its log has.
const LOOK: Duration = Duration::from_millis(100);
/// By then QEMU has logged what it has printed, if it does not go on printing.
const SETTLE: Duration = Duration::from_millis(20);
/// How long what was typed may take to be taken after all have left.
const FAREWELL: Duration = Duration::from_secs(1);
/// So many messages of what is typed may wait. Then who types more waits.
const TYPED: usize = 16;

pub(super) struct Hub {
    place: Place,
    log: Log,
    line: watch::Sender<Line>,
    typed: mpsc::Receiver<Bytes>,
}

impl Hub {
    /// Begins with what was printed before, and is there until nobody holds the console any more.
    pub(super) fn begin(place: Place) -> Console {
        let mut log = Log::new(place.log.clone());
        let mut recent = Recent::default();
        let logged = log.ahead();
        log.told(&logged, logged.bytes.len());
        recent.push(&logged.bytes);
        let (line, told) = watch::channel(Line { recent, state: state(&place, false) });
        let (typed, heard) = mpsc::channel(TYPED);
        tokio::spawn(Hub { place, log, line, typed: heard }.run());
        Console { line: told, typed }
    }

    async fn run(mut self) {
        loop {
            let is_live = (self.place.doing)().is_live;
            if is_live && let Ok(mut stream) = UnixStream::connect(&self.place.socket).await {
                if self.serve(&mut stream).await.is_none() {
                    return;
                }
                tell(&self.place, &self.line, false);
            }
            tokio::select! {
                () = self.line.closed() => return,
                // What is typed to a machine that does not run is not for its next run.
                () = discard(&mut self.typed), if !is_live => return,
                () = sleep(LOOK) => tell(&self.place, &self.line, false),
            }
        }
    }

    /// Passes on what one run of the machine prints and what is typed, until the run is over; nothing if all have left.
    async fn serve(&mut self, stream: &mut UnixStream) -> Option<()> {
        let Hub { place, log, line, typed } = self;
        let (from, to) = stream.split();
        tokio::select! {
            ended = listen(from, log, line) => {
                tracing::debug!(?ended, "a console's run is over");
                Some(())
            }
            () = keep_telling(place, line) => None,
            () = pass_on(typed, to) => None,
            () = async { line.closed().await; sleep(FAREWELL).await } => None,
        }
    }
}

fn state(place: &Place, connected: bool) -> ConsoleState {
    let doing = (place.doing)();
    ConsoleState { phase: doing.phase, reason: doing.reason, connected }
}

fn tell(place: &Place, line: &watch::Sender<Line>, connected: bool) {
    let state = state(place, connected);
    line.send_if_modified(|line| std::mem::replace(&mut line.state, state) != line.state);
}

async fn keep_telling(place: &Place, line: &watch::Sender<Line>) {
    loop {
        tell(place, line, true);
        sleep(LOOK).await;
    }
}

async fn discard(typed: &mut mpsc::Receiver<Bytes>) {
    while typed.recv().await.is_some() {}
}

/// Returns when all have left and QEMU has what they typed.
async fn pass_on(typed: &mut mpsc::Receiver<Bytes>, mut to: WriteHalf<'_>) {
    while let Some(bytes) = typed.recv().await {
        if to.write_all(&bytes).await.is_err() {
            // This run is over, which is noticed where it is listened to.
            std::future::pending().await
        }
    }
}

/// Publishes what is printed, until the connection is over.
async fn listen(mut from: ReadHalf<'_>, log: &mut Log, line: &watch::Sender<Line>) -> io::Result<()> {
    let mut buffer = vec![0; RECENT];
    let count = follow(&mut from, log, line, &mut buffer).await?;
    let mut came = buffer[..count].to_vec();
    sleep(SETTLE).await;
    while came.len() < RECENT && ioctl_fionread(from.as_ref())? > 0 {
        let count = from.read(&mut buffer).await?;
        came.extend_from_slice(&buffer[..count]);
    }
    let logged = log.ahead();
    let before = seam(&logged.bytes, &came);
    publish(line, &logged.bytes[..before]);
    loop {
        publish(line, &came);
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // Not counted as it came: QEMU logs again what it could not pass on at once, and nothing while the disk is full.
            log.told_all();
            return Ok(());
        }
        came.clear();
        came.extend_from_slice(&buffer[..count]);
    }
}

/// Publishes what is logged until something comes over the connection, or it is over. Returns how many bytes came.
async fn follow(
    from: &mut ReadHalf<'_>,
    log: &mut Log,
    line: &watch::Sender<Line>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        let logged = log.ahead();
        // What is logged has come before it was, if it does at all.
        if ioctl_fionread(from.as_ref())? == 0 {
            publish_logged(log, line, &logged);
        }
        if let Ok(count) = timeout(LOOK, from.read(buffer)).await {
            return count;
        }
    }
}

fn publish_logged(log: &mut Log, line: &watch::Sender<Line>, logged: &Logged) {
    publish(line, &logged.bytes);
    log.told(logged, logged.bytes.len());
}

fn publish(line: &watch::Sender<Line>, bytes: &[u8]) {
    if !bytes.is_empty() {
        line.send_modify(|line| line.recent.push(bytes));
    }
}
