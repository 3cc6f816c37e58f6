//! The routes about other nodes.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;

use watari_types::MachineName;

use super::App;
use super::answer::{Answer, body, look, operate};
use crate::api::*;

type Shared = State<Arc<App>>;

/// The nodes of the mesh, and what each has.
#[utoipa::path(get, path = "/nodes", tag = "mesh",
    responses((status = 200, body = NodeList), (status = "default", body = ErrorBody)))]
pub(super) async fn nodes(State(app): Shared) -> Answer {
    look(&app.node, |node| node.nodes()).await
}

/// Makes a ticket that lets one node in.
#[utoipa::path(post, path = "/nodes/invite", tag = "mesh", request_body = InviteRequest,
    responses((status = 200, body = Invitation), (status = "default", body = ErrorBody)))]
pub(super) async fn invite(State(app): Shared, bytes: Bytes) -> Answer {
    let request: InviteRequest = body(&bytes)?;
    look(&app.node, move |node| node.invite(request)).await
}

/// Joins somebody's mesh.
#[utoipa::path(post, path = "/nodes/join", tag = "mesh", request_body = JoinRequest,
    responses((status = 200, body = NodeList), (status = "default", body = ErrorBody)))]
pub(super) async fn join(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: JoinRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.join(&request, progress)).await
}

/// Leaves the mesh.
#[utoipa::path(post, path = "/nodes/leave", tag = "mesh",
    responses((status = 200, body = Left), (status = "default", body = ErrorBody)))]
pub(super) async fn leave(State(app): Shared, headers: HeaderMap) -> Answer {
    operate(&app.node, &headers, None, |node, _| node.leave_mesh()).await
}

/// Takes a node out of the mesh.
#[utoipa::path(post, path = "/nodes/remove", tag = "mesh", request_body = RemoveNodeRequest,
    responses((status = 200, body = NodeList), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: RemoveNodeRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, _| node.remove_node(&request)).await
}

/// Moves a running machine to another node. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines/{name}/teleport", tag = "mesh", params(("name" = String, Path)),
    request_body = TeleportRequest,
    responses((status = 200, body = Teleported), (status = "default", body = ErrorBody)))]
pub(super) async fn teleport(
    State(app): Shared,
    headers: HeaderMap,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Answer {
    let (name, request) = (text.parse::<MachineName>()?, body::<TeleportRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, progress| {
        node.teleport(&name, &request, progress)
    })
    .await
}
