//! A line between two network cards (taps) that are its standard input and its standard output: with a rate, a delay, losses, and
//! ends that can be pulled out. For benchmarks and tests of the mesh on kernels without `tc netem`.
//!
//! Listens on the unix socket whose path is its argument. Each line that comes there is JSON: what each direction is to be like
//! from then on, as far as it is said (`{"there":{"rate":100e6,"delay_ms":10,"loss":0.05,"open":true},"back":{…}}`; bits a
//! second). Each is answered with what went through so far: `{"there":{"bytes":…,"frames":…,"lost":…},"back":{…}}`.
//!
//! What comes from a card and goes to one has a `virtio_net_hdr` before it (`IFF_VNET_HDR`): where the cards leave it to the line to cut
//! long frames into those of the wire (`TUNSETOFFLOAD`), what it would then be is counted, and takes its time. Losses by chance are
//! those of what goes through in one piece, so they are for cards that cut it themselves.
//!
//! `open` is whether anything goes through. What waits to be sent takes at most [`QUEUE`] of time on the line, as in a router that
//! drops the rest.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What may wait to be sent, as time on the line: a usual router's.
const QUEUE: Duration = Duration::from_millis(50);
/// What lies before a frame (`struct virtio_net_hdr`).
const HEADER: usize = 10;
/// An Ethernet frame of all that IP can have, and some.
const LONGEST: usize = HEADER + 65536 + 64;

#[derive(Clone, Copy, Debug)]
struct Quality {
    /// Bits a second.
    rate: f64,
    delay: Duration,
    loss: f64,
    open: bool,
}

/// A change of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    rate: Option<f64>,
    delay_ms: Option<f64>,
    loss: Option<f64>,
    open: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Changes {
    there: Change,
    back: Change,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    bytes: u64,
    frames: u64,
    lost: u64,
}

struct State {
    quality: Quality,
    /// When the line is free.
    free: Instant,
    /// On their way, and when they arrive.
    flying: VecDeque<(Instant, Vec<u8>)>,
    count: Count,
}

/// What a frame is once it is cut. What is not understood goes as it is.
fn on_the_wire(frame: &[u8]) -> Count {
    let whole = Count { bytes: frame.len().saturating_sub(HEADER) as u64, frames: 1, lost: 0 };
    cut(frame).unwrap_or(whole)
}

fn cut(frame: &[u8]) -> Option<Count> {
    let (header, frame) = frame.split_at_checked(HEADER)?;
    let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (kind, each, transport, checksum) = (header[1], field(4), field(6), field(8));
    if kind == 0 || each == 0 {
        return None;
    }
    // By where its checksum lies, it is TCP, which says how long its header is, or UDP.
    let headers =
        transport + if checksum == 16 { usize::from(*frame.get(transport + 12)? >> 4) * 4 } else { 8 };
    let content = frame.len().checked_sub(headers)?;
    let frames = content.div_ceil(each);
    Some(Count { bytes: (content + frames * headers) as u64, frames: frames as u64, lost: 0 })
}

/// One direction.
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

impl Line {
    fn new() -> Arc<Line> {
        let quality = Quality { rate: 10e9, delay: Duration::ZERO, loss: 0.0, open: true };
        let state = State { quality, free: Instant::now(), flying: VecDeque::new(), count: Count::default() };
        Arc::new(Line { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: &Change) -> Count {
        let mut state = self.lock();
        let quality = &mut state.quality;
        quality.rate = change.rate.unwrap_or(quality.rate).max(1.0);
        quality.delay = change.delay_ms.map_or(quality.delay, |ms| Duration::from_secs_f64(ms / 1e3));
        quality.loss = change.loss.unwrap_or(quality.loss);
        quality.open = change.open.unwrap_or(quality.open);
        state.count
    }

    fn put(&self, frame: &[u8]) {
        let on_the_wire = on_the_wire(frame);
        let mut state = self.lock();
        let (now, quality) = (Instant::now(), state.quality);
        let starts = state.free.max(now);
        if !quality.open || fastrand::f64() < quality.loss || starts - now > QUEUE {
            state.count.lost += on_the_wire.frames;
            return;
        }
        state.free = starts + Duration::from_secs_f64(on_the_wire.bytes as f64 * 8.0 / quality.rate);
        state.count.bytes += on_the_wire.bytes;
        state.count.frames += on_the_wire.frames;
        let arrives = state.free + quality.delay;
        state.flying.push_back((arrives, frame.to_vec()));
        self.changed.notify_one();
    }

    /// Waits for the next frames to arrive.
    fn arrived(&self) -> Vec<Vec<u8>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = state.flying.partition_point(|(arrives, _)| *arrives <= now);
            if until > 0 {
                return state.flying.drain(..until).map(|(_, frame)| frame).collect();
            }
            let patience = state.flying.front().map_or(Duration::from_secs(1), |(arrives, _)| *arrives - now);
            state = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Carries frames from one card to the other.
fn carry(from: BorrowedFd<'static>, to: BorrowedFd<'static>, line: &Arc<Line>) {
    let taker = Arc::clone(line);
    thread::spawn(move || {
        let mut frame = vec![0; LONGEST];
        while let Ok(bytes) = rustix::io::read(from, &mut frame) {
            taker.put(&frame[..bytes]);
        }
    });
    let line = Arc::clone(line);
    thread::spawn(move || {
        loop {
            for frame in line.arrived() {
                // A card that is not up takes nothing.
                let _ = rustix::io::write(to, &frame);
            }
        }
    });
}

fn serve(stream: UnixStream, there: &Line, back: &Line) -> Result<(), Box<dyn Error>> {
    let mut answer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let changes: Changes = serde_json::from_str(&line?)?;
        let counts = (there.change(&changes.there), back.change(&changes.back));
        let text = serde_json::json!({ "there": counts.0, "back": counts.1 });
        writeln!(answer, "{text}")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: link SOCKET <>TAP >&TAP")?;
    let (near, far) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let (there, back) = (Line::new(), Line::new());
    carry(near, far, &there);
    carry(far, near, &back);
    let listener = UnixListener::bind(path)?;
    for stream in listener.incoming() {
        serve(stream?, &there, &back)?;
    }
    Ok(())
}
