//! `POST snapshots/{rev}/core`

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;

use super::App;
use super::answer::{Answer, body, operate};
use crate::api::{CoreInfo, CoreRequest, ErrorBody};

/// Writes a snapshot's memory and registers to a file of the daemon's host, as an ELF core. Answers with progress where
/// asked to.
#[utoipa::path(post, path = "/snapshots/{rev}/core", tag = "snapshots", params(("rev" = String, Path)),
    request_body = CoreRequest,
    responses((status = 200, body = CoreInfo), (status = "default", body = ErrorBody)))]
pub(super) async fn core(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(rev): Path<String>,
    bytes: Bytes,
) -> Answer {
    let request: CoreRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.core(&rev, &request, progress)).await
}
