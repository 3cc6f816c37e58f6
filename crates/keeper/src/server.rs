//! The keeper's socket: one connection, one request, its reply lines. The lines are in [`crate::protocol`].

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use watari_types::{ErrorKind, ErrorReport};

use crate::arrival::Arriving;
use crate::capture;
use crate::hands::Hands;
use crate::instance::{Instance, set_clock};
use crate::migrate::{self, Lender};
use crate::process::kill_if_same;
use crate::protocol::{Progress, Reply, Request};
use crate::record::Phase;
use crate::rewind;
use crate::run::{Ending, spawn};
use crate::screen::Source;
use crate::status::Board;
use crate::{Error, Result};

/// Longest request line. A checkpoint's message is the only part without a natural limit.
const MAX_REQUEST: u64 = 64 * 1024;
/// Longest line that says what is done with a keyboard or a pointer.
const MAX_INPUT: u64 = 256;

/// What the connections work on.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) instance: Arc<Mutex<Instance>>,
    pub(crate) board: Board,
    pub(crate) ending: Ending,
    pub(crate) qemu: (u32, u64),
    /// Beside the instance: a capture that takes long is no reason to see nothing.
    pub(crate) screen: Source,
    /// Beside the instance, and still only while the guest is held.
    pub(crate) hands: Hands,
    /// Beside the instance: what is lent is wanted also while the guest is captured.
    pub(crate) lender: Lender,
}

/// Serves connections for as long as the process lives, each on a thread of its own.
pub(crate) fn serve(listener: UnixListener, desk: Desk) {
    for stream in listener.incoming().flatten() {
        let desk = desk.clone();
        let spawned = std::thread::Builder::new().name("request".into()).spawn(move || {
            if let Err(error) = desk.converse(stream) {
                tracing::debug!(%error, "a client went away");
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a request");
        }
    }
}

impl Desk {
    fn converse(&self, stream: UnixStream) -> std::io::Result<()> {
        let conversation = self.board.conversation();
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_REQUEST)).read_line(&mut line)?;
        let mut out = Lines(&stream);
        match serde_json::from_str(&line) {
            Ok(Request::Watch) => self.watch(&mut out),
            Ok(Request::Lend) => {
                out.send(&Reply::Done(serde_json::Value::Null))?;
                self.lender.serve(stream.try_clone()?, || self.board.phase() == Phase::Paused)
            }
            // Whoever asked speaks first, once it has read the answer: QEMU has nothing to say before.
            Ok(Request::Screen) => match self.screen.show_to(&stream).and_then(|seen| json(&seen)) {
                Ok(value) => out.send(&Reply::Done(value)),
                Err(error) => out.send(&Reply::Error(error.report())),
            },
            Ok(Request::Touch) => {
                drop(conversation);
                out.send(&Reply::Done(serde_json::Value::Null))?;
                self.touch(&stream, &mut out)
            }
            Ok(request) => match self.answer(request, &mut out) {
                Ok(value) => out.send(&Reply::Done(value)),
                Err(error) => out.send(&Reply::Error(error.report())),
            },
            Err(e) => out.send(&Reply::Error(ErrorReport::new(
                ErrorKind::BadRequest,
                format!("not a request: {e}"),
                "",
            ))),
        }
    }

    /// Lets a held guest go on, and tells it what time it is by now.
    fn resume(&self) -> Result<(), Error> {
        let mut instance = self.instance();
        if instance.resume()? {
            let home = instance.home.clone();
            spawn("clock", move || set_clock(&home))?;
        }
        Ok(())
    }

    fn answer(&self, request: Request, out: &mut Lines<'_>) -> Result<serde_json::Value> {
        match request {
            Request::Status | Request::Watch | Request::Lend | Request::Screen | Request::Touch => {}
            Request::Checkpoint { message, tag } => {
                let mut instance = self.instance();
                let done = capture::checkpoint(&mut instance, &message, tag.as_deref(), &mut |progress| {
                    out.progress(&progress);
                })?;
                return json(&done);
            }
            Request::Pause => self.instance().pause()?,
            Request::Resume => self.resume()?,
            Request::Stop { limit_ms } => self.stop(Duration::from_millis(limit_ms))?,
            Request::Kill => self.kill()?,
            Request::GiveUp { snapshot, keep } => {
                let given_up = rewind::give_up(
                    &mut self.instance(),
                    snapshot,
                    keep.as_deref(),
                    &mut |progress| out.progress(&progress),
                    || self.end("given up for a restore"),
                )?;
                self.wait_for_end()?;
                return json(&given_up);
            }
            Request::Migrate { socket } => {
                let migrated =
                    migrate::migrate(&mut self.instance(), &socket, &mut |progress| out.progress(&progress))?;
                return json(&migrated);
            }
            Request::LeaveFirst { socket, lending } => {
                let _leaves = self.lender.leaves();
                let left = migrate::lend(&mut self.instance(), &socket, &lending, &mut |progress| {
                    out.progress(&progress);
                })?;
                return json(&left);
            }
            Request::Repay { snapshot } => self.instance().repay(snapshot)?,
            Request::Screenshot => {
                let path = self.instance().screenshot()?;
                return json(&serde_json::json!({ "path": path }));
            }
            Request::Network { action } => self.instance().network(&action)?,
        }
        json(&self.board.status())
    }

    /// Does what somebody says is done with the keyboard and the pointer, one thing after the other.
    fn touch(&self, stream: &UnixStream, out: &mut Lines<'_>) -> std::io::Result<()> {
        let mut from = BufReader::new(stream);
        let mut line = String::new();
        while from.by_ref().take(MAX_INPUT).read_line(&mut line)? > 0 {
            let done = match serde_json::from_str(&line) {
                Ok(input) => self.hands.act(input).map_err(|error| error.report()),
                Err(e) => Err(ErrorReport::new(ErrorKind::BadRequest, format!("not an input: {e}"), "")),
            };
            out.send(&done.map_or_else(Reply::Error, |()| Reply::Done(serde_json::Value::Null)))?;
            line.clear();
        }
        Ok(())
    }

    fn stop(&self, limit: Duration) -> Result<()> {
        if self.board.phase() == Phase::Paused {
            return Err(Error::HeldGuest { name: self.board.status().name });
        }
        // The instance is free again while the guest shuts down: it may take a minute.
        self.instance().ask_to_power_off()?;
        if self.board.wait_for_end(limit) {
            Ok(())
        } else {
            Err(Error::StillRunning { name: self.board.status().name, seconds: limit.as_secs() })
        }
    }

    fn kill(&self) -> Result<()> {
        // Not through the instance: a capture in progress must not delay this.
        self.end("killed");
        self.wait_for_end()
    }

    fn end(&self, reason: &'static str) {
        self.ending.set(reason);
        kill_if_same(self.qemu.0, self.qemu.1);
    }

    fn wait_for_end(&self) -> Result<()> {
        if self.board.wait_for_end(KILL_LIMIT) {
            Ok(())
        } else {
            Err(Error::StillRunning { name: self.board.status().name, seconds: KILL_LIMIT.as_secs() })
        }
    }

    fn watch(&self, out: &mut Lines<'_>) -> std::io::Result<()> {
        let mut seen = None;
        loop {
            let (status, version, over) = self.board.wait(seen);
            let value = serde_json::to_value(&status)?;
            if over {
                return out.send(&Reply::Done(value));
            }
            out.send(&Reply::Progress(value))?;
            seen = Some(version);
        }
    }

    /// Sees what a debugger has done to the guest, once nothing else is being done to it.
    pub(crate) fn follow_debugger(&self) {
        drop(self.instance());
    }

    /// Waits until all of memory is there, and does what is due then, once nothing else is being done.
    pub(crate) fn see_memory_arrive(&self, progress: &Arriving) {
        if !progress.wait() {
            return;
        }
        if let Err(error) = self.instance().memory_has_arrived() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "who touches new memory has to wait for it"
            );
        }
    }

    fn instance(&self) -> MutexGuard<'_, Instance> {
        // A request that panicked has left its pages unpublished, which the next capture makes good.
        let mut instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        instance.follow_debugger();
        instance
    }
}

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::Internal(e.to_string()))
}

/// Lines of JSON.
struct Lines<'a>(&'a UnixStream);

impl Lines<'_> {
    /// Says how far the work is. Whoever asked may have gone away; the work goes on.
    fn progress(&mut self, progress: &Progress) {
        let _ = json(progress).map(|value| self.send(&Reply::Progress(value)));
    }

    fn send(&mut self, reply: &Reply) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}
