//! What two processes on two nodes say to each other, passed on as it is.

use std::io;
use std::os::unix::net::UnixStream;

use iroh::endpoint::{RecvStream, SendStream};
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt, BufReader, Join, copy_buf, join};

/// What is passed on at once: less costs time for each, more lies in the way of what is urgent.
const AT_ONCE: usize = 128 << 10;

/// A stream to another node.
pub struct Way {
    pub(crate) send: SendStream,
    receive: RecvStream,
}

impl Way {
    pub(crate) fn over(send: SendStream, receive: RecvStream) -> Way {
        Way { send, receive }
    }

    /// What is said over it goes before what takes long: somebody waits for it.
    pub(crate) fn before_others(self) -> Way {
        // It fails where the stream has ended.
        let _ = self.send.set_priority(1);
        self
    }

    /// Both directions as one stream of bytes.
    pub fn into_stream(self) -> Join<RecvStream, SendStream> {
        join(self.receive, self.send)
    }

    /// Passes on what is said on a local socket and over the way, until both have said all. Whoever goes away ends it for both.
    ///
    /// # Errors
    /// One of them is cut.
    pub async fn pass_on(self, local: UnixStream) -> io::Result<()> {
        local.set_nonblocking(true)?;
        let (from_here, to_here) = tokio::net::UnixStream::from_std(local)?.into_split();
        let out = pass(BufReader::with_capacity(AT_ONCE, from_here), self.send);
        let back = pass(BufReader::with_capacity(AT_ONCE, self.receive), to_here);
        tokio::try_join!(out, back).map(drop)
    }
}

async fn pass(mut from: impl AsyncBufRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut from, &mut to).await?;
    to.shutdown().await
}
