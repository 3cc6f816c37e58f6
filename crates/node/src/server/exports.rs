//! `POST exports`: an answer that stays open for as long as the client wants its export.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use futures_util::{StreamExt, stream};

use super::App;
use super::answer::{Answer, blocking, body, json_line};
use crate::api::{ErrorBody, ExportInfo, ExportRequest, NDJSON};

/// Serves a disk of a snapshot, read-only, over NBD. The answer is one line and stays open; the export ends with
/// the connection.
#[utoipa::path(post, path = "/exports", tag = "snapshots", request_body = ExportRequest,
    responses((status = 200, body = ExportInfo, content_type = NDJSON), (status = "default", body = ErrorBody)))]
pub(super) async fn export(State(app): State<Arc<App>>, bytes: Bytes) -> Answer {
    let request: ExportRequest = body(&bytes)?;
    let node = app.node.clone();
    let served = blocking(move || node.export(&request)).await?;
    let first = json_line(&served.info);
    let stopped = app.stopped();
    // The second item never comes. It holds the export until the client or the daemon goes away.
    let rest = stream::once(async move {
        let _served = served;
        stopped.await;
        Bytes::new()
    });
    let lines = stream::iter([first]).chain(rest).map(Ok::<_, Infallible>);
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}
