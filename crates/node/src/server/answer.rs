//! From a blocking piece of work to an HTTP answer: JSON at the end, or lines with progress on the way.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use watari_keeper::protocol::Reply;
use watari_types::{ErrorKind, ErrorReport, MachineName};

use crate::api::{ErrorBody, NDJSON};
use crate::node::{Node, OnProgress};
use crate::{Error, Result};

/// An answer, or the error that is one too.
pub(crate) type Answer = std::result::Result<Response, Failure>;

/// An error as an answer.
pub(crate) struct Failure(Error);

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = self.0.report();
        (status(error.kind), Json(ErrorBody { error })).into_response()
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::UnknownMachine | ErrorKind::BadRevision => StatusCode::NOT_FOUND,
        ErrorKind::BadName | ErrorKind::BadRequest | ErrorKind::NotAnImage => StatusCode::BAD_REQUEST,
        ErrorKind::UnknownNode => StatusCode::NOT_FOUND,
        ErrorKind::BadTicket => StatusCode::BAD_REQUEST,
        ErrorKind::Unreachable => StatusCode::BAD_GATEWAY,
        ErrorKind::Untrusted | ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NameTaken | ErrorKind::WrongState | ErrorKind::HomeInUse => StatusCode::CONFLICT,
        ErrorKind::NoSpace | ErrorKind::NotEnoughMemory => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::QemuMissing | ErrorKind::QemuTooOld | ErrorKind::NoDaemon | ErrorKind::NoKeeper => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Damaged | ErrorKind::Qemu | ErrorKind::Io | ErrorKind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// A request's body. None at all is an empty object.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|e| Error::BadRequest(format!("the request's body is not right: {e}")))
}

/// Does something quick that may touch the disk.
pub(crate) async fn look<T: Serialize + Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Arc<Node>) -> Result<T> + Send + 'static,
) -> Answer {
    let node = node.clone();
    let value = blocking(move || work(&node)).await?;
    Ok(Json(value).into_response())
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(format!("a request failed: {e}")))?
}

/// Does `work` with the lock of `machine` held, and to its end even if the client goes away.
pub(crate) async fn operate<T: Serialize + Send + 'static>(
    node: &Arc<Node>,
    headers: &HeaderMap,
    machine: Option<MachineName>,
    work: impl FnOnce(&Arc<Node>, OnProgress) -> Result<T> + Send + 'static,
) -> Answer {
    let (lines, received) = unbounded_channel();
    let node = node.clone();
    let task = tokio::spawn({
        let lines = lines.clone();
        async move {
            let busy = match &machine {
                Some(name) => Some(node.lock(name).await),
                None => None,
            };
            blocking(move || {
                let _busy = busy;
                work(&node, &|progress| {
                    if let Ok(value) = serde_json::to_value(progress) {
                        // Nobody listens where only the result was asked for.
                        let _ = lines.send(Reply::Progress(value));
                    }
                })
            })
            .await
        }
    });
    let finished = async move { task.await.map_err(|e| Error::Internal(format!("a request failed: {e}")))? };
    if !wants_lines(headers) {
        drop(received);
        return Ok(Json(finished.await?).into_response());
    }
    tokio::spawn(async move {
        let last = match finished.await.map(|value| serde_json::to_value(value)) {
            Ok(Ok(value)) => Reply::Done(value),
            Ok(Err(e)) => Reply::Error(ErrorReport::new(ErrorKind::Internal, e, "")),
            Err(error) => Reply::Error(error.report()),
        };
        let _ = lines.send(last);
    });
    Ok(ndjson(received))
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.split(',').any(|part| part.trim().starts_with(NDJSON)))
}

fn ndjson(received: UnboundedReceiver<Reply>) -> Response {
    let lines = stream::unfold(received, async |mut received| {
        let reply = received.recv().await?;
        Some((Ok::<_, Infallible>(json_line(&reply)), received))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

/// One line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    line.push(b'\n');
    line.into()
}
