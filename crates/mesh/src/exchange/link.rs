//! Messages over a pair of streams, for threads that may block: two tasks read and write, each at most a few messages ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use watari_types::ErrorReport;

use super::message::{HEAD_BYTES, Message, length};
use crate::Error;

/// Messages that are read or to be written at a time: some megabytes of pages.
const AHEAD: usize = 16;
/// What is announced takes no memory before it has come, a piece of this size at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A conversation with another node. When it is dropped what was sent still goes out, and nothing more is read.
pub struct Link {
    inbox: mpsc::Receiver<Result<Message, Error>>,
    outbox: mpsc::Sender<Vec<u8>>,
    reader: JoinHandle<()>,
    sent: Arc<AtomicU64>,
}

impl Link {
    /// Begins to read and write, no more than `limit` bytes a second if there is one.
    pub fn over<R, W>(runtime: &Handle, read: R, write: W, limit: Option<u64>) -> Link
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (received, inbox) = mpsc::channel(AHEAD);
        let (outbox, to_send) = mpsc::channel(AHEAD);
        let sent = Arc::new(AtomicU64::new(0));
        let reader = runtime.spawn(read_all(read, received));
        runtime.spawn(write_all(write, to_send, Arc::clone(&sent), limit));
        Link { inbox, outbox, reader, sent }
    }

    /// Bytes that were written so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says why it ends.
    pub fn refuse(&self, report: &ErrorReport) {
        // Whoever is gone needs no reason.
        let _ = self.send(&Message::Refuse(report.clone()));
    }

    /// Waits for a message. Must not be called from an async task.
    pub(crate) fn receive(&mut self) -> Result<Message, Error> {
        match self.inbox.blocking_recv() {
            Some(Ok(Message::Refuse(report))) => Err(Error::Refused(report)),
            Some(received) => received,
            None => Err(Error::Cut),
        }
    }

    /// Sends a message, once there is room for it. Must not be called from an async task.
    pub(crate) fn send(&self, message: &Message) -> Result<(), Error> {
        self.outbox.blocking_send(message.encode()).map_err(|_| Error::Cut)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read_all(mut read: impl AsyncRead + Unpin, received: mpsc::Sender<Result<Message, Error>>) {
    loop {
        let message = read_message(&mut read).await;
        let is_last = message.is_err();
        if received.send(message).await.is_err() || is_last {
            return;
        }
    }
}

pub(crate) async fn read_message(read: &mut (impl AsyncRead + Unpin)) -> Result<Message, Error> {
    let mut head = [0; HEAD_BYTES];
    read.read_exact(&mut head).await.map_err(|_| Error::Cut)?;
    let bytes = length(head)? as usize;
    let mut content = Vec::new();
    while content.len() < bytes {
        let begins = content.len();
        content.resize(bytes.min(begins + PIECE_BYTES), 0);
        read.read_exact(&mut content[begins..]).await.map_err(|_| Error::Cut)?;
    }
    Ok(Message::decode(head[0], &content)?)
}

async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut to_send: mpsc::Receiver<Vec<u8>>,
    sent: Arc<AtomicU64>,
    limit: Option<u64>,
) {
    let mut free = Instant::now();
    while let Some(bytes) = to_send.recv().await {
        if let Some(limit) = limit {
            tokio::time::sleep_until(free).await;
            let takes = Duration::from_secs_f64(bytes.len() as f64 / limit.max(1) as f64);
            free = free.max(Instant::now()) + takes;
        }
        if write.write_all(&bytes).await.is_err() {
            // Whoever sends notices when the channel is gone, whoever receives when the stream is.
            return;
        }
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    let _ = write.shutdown().await;
}
