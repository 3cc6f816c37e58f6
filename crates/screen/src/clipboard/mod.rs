//! The text of a guest's clipboard, over what spice-vdagent speaks
//! ([the protocol](https://www.spice-space.org/agent-protocol.html)).
//!
//! ```text
//!  Clipboard ──set──► Talk ──► socket ──► QEMU ──► the port com.redhat.spice.0 ──► the guest's agent
//!     ▲ copied, has_agent │ ◄──       ◄──      ◄──                             ◄──
//!     └───────────────────┘
//! ```
//!
//! The socket says nothing of whether there is an agent behind it: it takes what fits, and stays as it is when the agent goes or
//! another one comes. So whatever cannot be understood, or does not go on, ends the connection; over the next one the agent is
//! asked what it can do, and all begins again.

mod talk;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::talk::Talk;

/// How long a text may be, in bytes of UTF-8.
pub const LONGEST: usize = 1 << 20;

/// Between one attempt to connect and the next.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an agent may stop in the middle of a message.
const STALLED: Duration = Duration::from_secs(5);
/// So much is read at once.
const READ: usize = 64 << 10;

/// Something that was copied in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// A text, its lines ended by `\n`.
    Text(Arc<str>),
    /// One of so many bytes: more than [`LONGEST`].
    TooLong(usize),
}

/// A text has this many bytes, more than [`LONGEST`]; it was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text of {0} bytes is too long for the clipboard: {LONGEST} go")]
pub struct TooLong(pub usize);

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// A chunk's header is none.
    #[error("the agent sends a chunk for port {0}")]
    Port(u32),
    /// A message's header is none.
    #[error("the agent sends a message of protocol {0}")]
    Protocol(u32),
    /// What is said to be a text is none.
    #[error("the agent sends a text with what no text has in it")]
    NoText,
    /// More is asked for than an agent asks for.
    #[error("the agent asks for more and more, and takes no answer")]
    Greedy,
    /// One has started that would take the rest of a message for the beginning of one.
    #[error("another agent has started, in the middle of a message to the last one")]
    AnotherAgent,
    /// What was begun does not go on.
    #[error("the agent has stopped in the middle of a message")]
    Stalled,
}

/// A guest's clipboard, for as long as this is kept.
pub struct Clipboard {
    set: watch::Sender<Option<Arc<str>>>,
    has_agent: watch::Receiver<bool>,
    copied: watch::Receiver<Option<Copied>>,
    keeping: JoinHandle<()>,
}

impl Clipboard {
    /// The clipboard of the guest whose agent's port is at `socket`, which may come and go. Needs a Tokio runtime.
    pub fn open(socket: PathBuf) -> Clipboard {
        let (set, to_set) = watch::channel(None);
        let (agent, has_agent) = watch::channel(false);
        let (copy, copied) = watch::channel(None);
        let keeping = tokio::spawn(Keeper { socket, to_set, agent, copy }.keep());
        Clipboard { set, has_agent, copied, keeping }
    }

    /// Whether the guest has an agent that knows of clipboards: one has said so since the connection was made. Of one that ends
    /// nothing is heard.
    pub fn has_agent(&self) -> watch::Receiver<bool> {
        self.has_agent.clone()
    }

    /// What was copied in the guest last, and tells when something is from now on: not what was set here, though it be copied there.
    pub fn copied(&self) -> watch::Receiver<Option<Copied>> {
        let mut copied = self.copied.clone();
        copied.mark_unchanged();
        copied
    }

    /// Has the guest paste this text, until something is copied there. If there is no agent it is offered to the next one.
    ///
    /// # Errors
    /// [`TooLong`]; then all is as it was.
    pub fn set(&self, text: &str) -> Result<(), TooLong> {
        if text.len() > LONGEST {
            return Err(TooLong(text.len()));
        }
        self.set.send_replace(Some(text.replace("\r\n", "\n").into()));
        Ok(())
    }
}

impl Drop for Clipboard {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// What goes on behind a [`Clipboard`].
struct Keeper {
    socket: PathBuf,
    to_set: watch::Receiver<Option<Arc<str>>>,
    agent: watch::Sender<bool>,
    copy: watch::Sender<Option<Copied>>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut talk = Talk::default();
        loop {
            talk = match UnixStream::connect(&self.socket).await {
                Ok(stream) => match self.converse(&mut talk, &stream).await {
                    Ok(()) => Talk::default(),
                    Err(lost) => {
                        tracing::debug!(socket = %self.socket.display(), %lost, "the agent is connected to again");
                        talk.anew()
                    }
                },
                Err(_) => talk,
            };
            self.tell(false);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Talks until the other end hangs up.
    async fn converse(&mut self, talk: &mut Talk, stream: &UnixStream) -> Result<(), Lost> {
        let mut buffer = vec![0; READ];
        loop {
            let is_due = !talk.to_write().is_empty();
            tokio::select! {
                Ok(()) = self.to_set.changed() => {
                    if let Some(text) = &*self.to_set.borrow_and_update() {
                        talk.set(text);
                    }
                }
                ready = stream.readable() => match ready.and_then(|()| stream.try_read(&mut buffer)) {
                    Ok(0) => return Ok(()),
                    Ok(read) => self.hear(talk, &buffer[..read])?,
                    Err(error) if is_passing(&error) => {}
                    Err(_) => return Ok(()),
                },
                ready = stream.writable(), if is_due => match ready.and_then(|()| stream.try_write(talk.to_write())) {
                    Ok(written) => talk.wrote(written),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => return Ok(()),
                },
                () = tokio::time::sleep(STALLED), if talk.is_amid() => return Err(Lost::Stalled),
            }
        }
    }

    fn hear(&self, talk: &mut Talk, bytes: &[u8]) -> Result<(), Lost> {
        if let Some(copied) = talk.hear(bytes)? {
            self.copy.send_replace(Some(copied));
        }
        self.tell(talk.has_agent());
        Ok(())
    }

    fn tell(&self, has_agent: bool) {
        self.agent.send_if_modified(|had| std::mem::replace(had, has_agent) != has_agent);
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}
