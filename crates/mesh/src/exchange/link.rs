//! Messages between two nodes, for threads that may block: tasks read and write, a few messages ahead.
//!
//! A link is one stream each way, and *lanes*: further streams, over which pages go one way. What is lost on one lane holds up
//! none of the others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use watari_types::ErrorReport;

use super::message::{HEAD_BYTES, Message, length};
use crate::{Error, wire};

/// Messages that are read and not handled yet: some megabytes of pages.
const READ_AHEAD: usize = 16;
/// Messages that wait to be written, for each stream.
const WRITE_AHEAD: usize = 4;
/// What is announced takes no memory before it has come, a piece of this size at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A conversation with another node. When it is dropped what was sent still goes out, and nothing more is read.
pub struct Link {
    inbox: mpsc::Receiver<Result<Message, Error>>,
    inlet: Inlet,
    outbox: Outbox,
    lanes: Vec<Outbox>,
    /// The lane that is tried first.
    turn: usize,
    pace: Pace,
    _kept: Vec<Box<dyn Send>>,
}

/// What comes over a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// What the other side says.
    Main,
    /// The same, after its answer whether it will.
    Unanswered,
    /// Pages.
    Lane,
}

/// Where streams bring their messages.
#[derive(Clone)]
pub(crate) struct Inlet {
    received: mpsc::Sender<Result<Message, Error>>,
    /// To be ended with the link.
    readers: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Link {
    /// Begins to read and write, no more than `limit` bytes a second if there is one.
    pub fn over<R, W>(runtime: &Handle, read: R, write: W, limit: Option<u64>) -> Link
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        Link::begin(runtime, read, write, limit, Stream::Main)
    }

    /// The same, where the other side was asked whether it will and has not answered yet: what it is told meanwhile it reads if
    /// it will, and why it will not is received as an error.
    pub(crate) fn unanswered<R, W>(runtime: &Handle, read: R, write: W, limit: Option<u64>) -> Link
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        Link::begin(runtime, read, write, limit, Stream::Unanswered)
    }

    fn begin<R, W>(runtime: &Handle, read: R, write: W, limit: Option<u64>, stream: Stream) -> Link
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (received, inbox) = mpsc::channel(READ_AHEAD);
        let inlet = Inlet { received, readers: Arc::default() };
        inlet.bring(runtime, read, stream);
        let pace = Pace::new(limit);
        let outbox = Outbox::over(runtime, write, pace.clone());
        Link { inbox, inlet, outbox, lanes: Vec::new(), turn: 0, pace, _kept: Vec::new() }
    }

    /// Where the other side's lanes bring what comes over them.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Has pages go over one more stream.
    pub(crate) fn add_lane(&mut self, runtime: &Handle, write: impl AsyncWrite + Unpin + Send + 'static) {
        self.lanes.push(Outbox::over(runtime, write, self.pace.clone()));
    }

    /// Drops this when the link is dropped.
    pub(crate) fn keep(&mut self, something: impl Send + 'static) {
        self._kept.push(Box::new(something));
    }

    /// Bytes that were written so far.
    pub fn sent_bytes(&self) -> u64 {
        self.pace.sent.load(Ordering::Relaxed)
    }

    /// Says why it ends.
    pub fn refuse(&mut self, report: &ErrorReport) {
        // Whoever is gone needs no reason.
        let _ = self.write(&Message::Refuse(report.clone()));
    }

    /// Waits for a message. Must not be called from an async task.
    pub(crate) fn receive(&mut self) -> Result<Message, Error> {
        match self.inbox.blocking_recv() {
            Some(Ok(Message::Refuse(report))) => Err(Error::Refused(report)),
            Some(received) => received,
            None => Err(Error::cut("nothing comes any more")),
        }
    }

    /// Sends a message, once there is room for it. Must not be called from an async task.
    pub(crate) fn send(&mut self, message: &Message) -> Result<(), Error> {
        self.write(message).map_err(|error| self.what_was_said_last().unwrap_or(error))
    }

    /// Why the other side takes nothing any more, if it has said so: that comes over one stream, and the end of others may be
    /// noticed before it.
    fn what_was_said_last(&mut self) -> Option<Error> {
        loop {
            match self.inbox.blocking_recv()? {
                Ok(Message::Refuse(report)) => return Some(Error::Refused(report)),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    fn write(&mut self, message: &Message) -> Result<(), Error> {
        let bytes = message.encode();
        match message {
            Message::Pages(_) if !self.lanes.is_empty() => self.send_over_a_lane(bytes),
            _ => self.outbox.send(bytes),
        }
    }

    fn send_over_a_lane(&mut self, mut bytes: Vec<u8>) -> Result<(), Error> {
        self.turn = (self.turn + 1) % self.lanes.len();
        let (before, from) = self.lanes.split_at(self.turn);
        for lane in from.iter().chain(before) {
            bytes = match lane.messages.try_send(bytes) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(bytes) | TrySendError::Closed(bytes)) => bytes,
            };
        }
        self.lanes[self.turn].send(bytes)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inlet.readers.lock().iter().for_each(AbortHandle::abort);
    }
}

impl Inlet {
    /// Reads a stream to its end. The end of the stream on which both sides talk is the end of the conversation.
    pub(crate) fn bring(
        &self,
        runtime: &Handle,
        mut read: impl AsyncRead + Unpin + Send + 'static,
        stream: Stream,
    ) {
        let received = self.received.clone();
        let reader = runtime.spawn(async move {
            if stream == Stream::Unanswered
                && let Err(error) = wire::answered::<()>(&mut read).await
            {
                let _ = received.send(Err(error)).await;
                return;
            }
            loop {
                let message = match read_message(&mut read).await.transpose() {
                    None if stream != Stream::Lane => Err(Error::cut("nothing comes any more")),
                    None => return,
                    Some(message) => message,
                };
                let is_last = message.is_err();
                if received.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        self.readers.lock().push(reader.abort_handle());
    }
}

/// Reads a message. `None` at the end of the stream.
pub(crate) async fn read_message(read: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>, Error> {
    let mut head = [0; HEAD_BYTES];
    if read.read(&mut head[..1]).await.map_err(Error::cut)? == 0 {
        return Ok(None);
    }
    read.read_exact(&mut head[1..]).await.map_err(Error::cut)?;
    let bytes = length(head)? as usize;
    let mut content = Vec::new();
    while content.len() < bytes {
        let begins = content.len();
        content.resize(bytes.min(begins + PIECE_BYTES), 0);
        read.read_exact(&mut content[begins..]).await.map_err(Error::cut)?;
    }
    Ok(Some(Message::decode(head[0], &content)?))
}

/// One stream that is written to.
struct Outbox {
    messages: mpsc::Sender<Vec<u8>>,
    /// Why nothing can be sent any more.
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Outbox {
    fn over(runtime: &Handle, write: impl AsyncWrite + Unpin + Send + 'static, pace: Pace) -> Outbox {
        let (messages, to_send) = mpsc::channel(WRITE_AHEAD);
        let failed = Arc::new(Mutex::new(None));
        let why = Arc::clone(&failed);
        runtime.spawn(async move {
            if let Err(error) = write_all(write, to_send, pace).await {
                *why.lock() = Some(error);
            }
        });
        Outbox { messages, failed }
    }

    fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.messages.blocking_send(bytes).map_err(|_| match self.failed.lock().take() {
            Some(error) => Error::cut(error),
            None => Error::cut("nothing can be sent any more"),
        })
    }
}

async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut to_send: mpsc::Receiver<Vec<u8>>,
    pace: Pace,
) -> io::Result<()> {
    while let Some(bytes) = to_send.recv().await {
        pace.wait_for(bytes.len()).await;
        write.write_all(&bytes).await?;
        pace.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    write.shutdown().await
}

/// How much was sent over all streams of a link, and how fast that may go.
#[derive(Clone)]
struct Pace {
    sent: Arc<AtomicU64>,
    /// Bytes a second, and when the next may be sent.
    limit: Option<(f64, Arc<Mutex<Instant>>)>,
}

impl Pace {
    fn new(limit: Option<u64>) -> Pace {
        let limit = limit.map(|limit| (limit.max(1) as f64, Arc::new(Mutex::new(Instant::now()))));
        Pace { sent: Arc::default(), limit }
    }

    /// Waits until so many bytes may be sent.
    async fn wait_for(&self, bytes: usize) {
        let Some((limit, free)) = &self.limit else { return };
        let now = Instant::now();
        let turn = {
            let mut free = free.lock();
            let turn = (*free).max(now);
            *free = turn + Duration::from_secs_f64(bytes as f64 / limit);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}
