//! The listening side: accepts clients, bounds their number, ends them all.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};

use crate::nbd::{Export, connection};

/// Clients at a time; more are turned away.
const MAX_CONNECTIONS: usize = 32;

/// What a server offers, by name.
pub type Exports = BTreeMap<String, Arc<dyn Export>>;

/// A running NBD server. Dropping it closes all connections and waits for the requests being performed; those
/// that wait for room to put sealed content aside go on when that [`Sealed`](crate::Sealed) is read or dropped.
pub struct Server {
    /// Closing it wakes the acceptor, which then ends.
    wake: Option<UnixStream>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `exports` to those who connect to `listener`.
    ///
    /// # Errors
    /// No thread or socket could be had.
    pub fn start(listener: UnixListener, exports: Exports) -> io::Result<Server> {
        let (wake, woken) = UnixStream::pair()?;
        listener.set_nonblocking(true)?;
        let exports = Arc::new(exports);
        let acceptor = thread::Builder::new()
            .name("disk-nbd-accept".into())
            .spawn(move || accept(&listener, &woken, &exports))?;
        Ok(Server { wake: Some(wake), acceptor: Some(acceptor) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            tracing::error!("the thread that accepts NBD clients panicked");
        }
    }
}

struct Client {
    stream: Arc<UnixStream>,
    thread: JoinHandle<()>,
}

fn accept(listener: &UnixListener, woken: &UnixStream, exports: &Arc<Exports>) {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) if !ready[1].revents().is_empty() => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => {
                tracing::error!("cannot wait for NBD clients any more: {err}");
                break;
            }
        }
        clients.retain(|client| !client.thread.is_finished());
        match listener.accept() {
            Ok(_) if clients.len() == MAX_CONNECTIONS => {
                tracing::warn!("an NBD client was turned away: there are {MAX_CONNECTIONS} already");
            }
            Ok((stream, _)) => match serve(stream, exports) {
                Ok(client) => clients.push(client),
                Err(err) => tracing::warn!("cannot serve an NBD client: {err}"),
            },
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(err) => tracing::warn!("cannot accept an NBD client: {err}"),
        }
    }
    for client in &clients {
        let _ = client.stream.shutdown(Shutdown::Both);
    }
    for client in clients {
        if client.thread.join().is_err() {
            tracing::error!("a thread that served an NBD client panicked");
        }
    }
}

fn serve(stream: UnixStream, exports: &Arc<Exports>) -> io::Result<Client> {
    stream.set_nonblocking(false)?;
    let stream = Arc::new(stream);
    let (served, exports) = (stream.clone(), exports.clone());
    let thread = thread::Builder::new().name("disk-nbd".into()).spawn(move || {
        if let Err(err) = connection::serve(&served, &exports) {
            tracing::debug!("an NBD client left during the handshake: {err}");
        }
        // The acceptor still has the socket; the client should know now.
        let _ = served.shutdown(Shutdown::Both);
    })?;
    Ok(Client { stream, thread })
}
