//! The daemon's API, as the commands use it: HTTP on the home's unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::{WebSocketStream, client_async};
use watari_keeper::protocol::{Progress, Reply};
use watari_node::api::{ErrorBody, NDJSON, Shown};
use watari_types::{ErrorKind, ErrorReport, MachineName, Rev};

use crate::args::{Global, revision};
use crate::failure::{Failure, Result};
use crate::progress::{Bar, PATIENCE};

/// A daemon that may or may not be there.
pub(crate) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// No request has a body.
const NOTHING: Option<&()> = None;

impl Client {
    pub(crate) fn new(global: &Global) -> Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::io("start", &e))?;
        Ok(Client { socket: global.node_socket()?, runtime })
    }

    /// Asks for something that changes nothing.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.work(Method::GET, path, NOTHING)
    }

    /// Has something done that needs no description.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.work(Method::POST, path, NOTHING)
    }

    /// Has something done, with a bar if it takes long.
    pub(crate) fn post_with<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.work(Method::POST, path, Some(body))
    }

    /// Has something removed.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.work(Method::DELETE, path, NOTHING)
    }

    /// Asks for bytes of another kind than JSON.
    pub(crate) fn get_bytes(&self, path: &str) -> Result<Bytes> {
        self.runtime.block_on(async {
            let answer = self.send(Method::GET, path, NOTHING).await?;
            Ok(answer.into_body().collect().await.map_err(lost)?.to_bytes())
        })
    }

    /// Has something begun that lasts as long as its answer is read: `first` gets the answer's first line.
    /// Returns when the daemon ends it.
    pub(crate) fn hold<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        first: impl FnOnce(T) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let mut lines = Lines::new(self.send(Method::POST, path, Some(body)).await?);
            first(parse(&lines.next().await?.unwrap_or_default())?)?;
            while lines.next().await?.is_some() {}
            Ok(())
        })
    }

    /// Has a conversation over a WebSocket.
    pub(crate) fn converse<T>(
        &self,
        path: &str,
        conversation: impl AsyncFnOnce(WebSocketStream<UnixStream>) -> Result<T>,
    ) -> Result<T> {
        self.runtime.block_on(async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.no_daemon(&e))?;
            let opened = client_async(format!("ws://watari/api/v1/{path}"), stream).await;
            let (socket, _) = opened.map_err(|error| match error {
                SocketError::Http(answer) => {
                    match parse::<ErrorBody>(answer.body().as_deref().unwrap_or_default()) {
                        Ok(body) => body.error.into(),
                        Err(failure) => failure,
                    }
                }
                error => broken(&error),
            })?;
            conversation(socket).await
        })
    }

    fn work<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        self.runtime.block_on(async {
            let mut bar = Bar::new();
            let moved = bar.mover();
            let finished = self.follow(method, path, body, &moved);
            tokio::pin!(finished);
            let shown = tokio::select! {
                done = &mut finished => Some(done),
                () = tokio::time::sleep(PATIENCE) => None,
            };
            match shown {
                Some(done) => done,
                None => {
                    bar.show();
                    finished.await
                }
            }
        })
    }

    async fn follow<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        moved: &(dyn Fn(&Progress) + Sync),
    ) -> Result<T> {
        let answer = self.send(method, path, body).await?;
        let is_lines =
            answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == NDJSON.as_bytes());
        if !is_lines {
            return parse(&answer.into_body().collect().await.map_err(lost)?.to_bytes());
        }
        let mut lines = Lines::new(answer);
        while let Some(line) = lines.next().await? {
            match parse(&line)? {
                Reply::Progress(value) => {
                    if let Ok(progress) = serde_json::from_value(value) {
                        moved(&progress);
                    }
                }
                Reply::Done(value) => return serde_json::from_value(value).map_err(|e| garbled(&e)),
                Reply::Error(report) => return Err(report.into()),
            }
        }
        Err(ErrorReport::new(ErrorKind::NoDaemon, "the daemon went away", "`watari up` starts it again")
            .into())
    }

    /// Sends a request and returns the answer if it is no error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.no_daemon(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| garbled(&e))?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(HOST, "watari")
            .header(ACCEPT, format!("{NDJSON}, application/json"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| ErrorReport::new(ErrorKind::Internal, e, ""))?;
        let answer = sender.send_request(request).await.map_err(lost)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().collect().await.map_err(lost)?.to_bytes();
        Err(parse::<ErrorBody>(&body)?.error.into())
    }

    fn no_daemon(&self, error: &std::io::Error) -> Failure {
        let message = format!("no daemon answers on {}: {error}", self.socket.display());
        ErrorReport::new(ErrorKind::NoDaemon, message, "`watari up` starts it").into()
    }

    /// The machine in whose history a revision is.
    pub(crate) fn machine_of(&self, rev: &str) -> Result<MachineName> {
        if let Rev::At(name, _) = revision(rev)? {
            return Ok(name);
        }
        let shown: Shown = self.get(&format!("snapshots/{rev}"))?;
        shown.machine.map(|machine| machine.name).ok_or_else(|| {
            let message = format!("the machine that {rev} belonged to is gone");
            ErrorReport::new(ErrorKind::UnknownMachine, message, "`watari list` shows the machines").into()
        })
    }
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| garbled(&e))
}

fn garbled(error: &serde_json::Error) -> Failure {
    let message = format!("the daemon's answer is not understood: {error}");
    let hint = "daemon and command may be of different versions: `watari down`, then `watari up`";
    ErrorReport::new(ErrorKind::Internal, message, hint).into()
}

fn lost(error: hyper::Error) -> Failure {
    gone(&error.to_string())
}

/// A conversation ended that the daemon had not ended.
pub(crate) fn broken(error: &SocketError) -> Failure {
    gone(&error.to_string())
}

fn gone(why: &str) -> Failure {
    let message = format!("the daemon went away: {why}");
    ErrorReport::new(ErrorKind::NoDaemon, message, "`watari up` starts it again").into()
}

/// The lines of an answer, as they come.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(answer: Response<Incoming>) -> Lines {
        Lines { body: answer.into_body(), buffer: Vec::new() }
    }

    /// The next line without its end; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(lost)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
