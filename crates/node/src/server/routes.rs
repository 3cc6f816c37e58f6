//! The routes, as both listeners serve them, each with its OpenAPI description.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use watari_types::MachineName;

use super::access::Access;
use super::answer::{Answer, blocking, body, look, operate};
use super::{App, console, core, exports, mesh, screen, visits};
use crate::api::*;
use crate::{Error, doctor};

#[derive(OpenApi)]
#[openapi(info(
    title = "Watari",
    description = "A node of Watari. Long work answers with lines of progress to a client that accepts \
                   application/x-ndjson: {\"progress\":{step,done,total}}, then {\"done\":…} or {\"error\":…}."
))]
struct Description;

type Shared = State<Arc<App>>;

/// Every route below `/api/v1`.
pub(super) fn router(app: Arc<App>) -> Router {
    let watched = OpenApiRouter::new()
        .routes(routes!(screen::screen))
        .routes(routes!(screen::thumbnail))
        .routes(routes!(console::console))
        .route_layer(from_fn_with_state(app.clone(), visits::follow));
    let routes = OpenApiRouter::new()
        .routes(routes!(node))
        .routes(routes!(doctor))
        .routes(routes!(shutdown))
        .routes(routes!(list, create))
        .routes(routes!(machine, remove))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(kill))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(checkpoint))
        .routes(routes!(restore))
        .routes(routes!(clone_machine))
        .routes(routes!(network))
        .routes(routes!(log))
        .routes(routes!(tag))
        .routes(routes!(untag))
        .routes(routes!(screenshot))
        .merge(watched)
        .routes(routes!(screen::links))
        .routes(routes!(snapshot))
        .routes(routes!(forget))
        .routes(routes!(diff))
        .routes(routes!(core::core))
        .routes(routes!(verify))
        .routes(routes!(gc))
        .routes(routes!(push))
        .routes(routes!(pull))
        .routes(routes!(trusted, trust))
        .routes(routes!(mesh::teleport))
        .routes(routes!(mesh::nodes))
        .routes(routes!(mesh::invite))
        .routes(routes!(mesh::join))
        .routes(routes!(mesh::leave))
        .routes(routes!(mesh::remove))
        .routes(routes!(exports::export));
    let (router, description) =
        OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", routes).split_for_parts();
    router
        .route("/api/v1/openapi.json", get(async move || Json(description)))
        .route("/api/{*path}", any(nowhere))
        .fallback(nowhere)
        .with_state(app)
}

async fn nowhere(uri: Uri) -> Answer {
    Err(Error::BadRequest(format!("there is nothing at {}", uri.path())).into())
}

pub(super) fn name(text: &str) -> Result<MachineName, Error> {
    Ok(text.parse()?)
}

/// The daemon itself.
#[utoipa::path(get, path = "/node", tag = "node", responses((status = 200, body = NodeInfo)))]
async fn node(State(app): Shared, Extension(access): Extension<Access>) -> Json<NodeInfo> {
    let mut info = app.info.clone();
    if access != Access::Owner {
        // A page in a browser has no business with the token that it came with.
        info.web_url = format!("{}/", app.origin);
    }
    Json(info)
}

/// Tests this computer for what Watari needs. Answers with progress where asked to.
#[utoipa::path(get, path = "/doctor", tag = "node",
    responses((status = 200, body = DoctorReport), (status = "default", body = ErrorBody)))]
async fn doctor(State(app): Shared, headers: HeaderMap) -> Answer {
    operate(&app.node, &headers, None, move |node, progress| {
        Ok(DoctorReport { checks: doctor::examine(&node.options, progress)? })
    })
    .await
}

/// Stops the daemon. Its machines run on unless they are to end too.
#[utoipa::path(post, path = "/node/shutdown", tag = "node", request_body = ShutdownRequest,
    responses((status = 200, body = NodeInfo), (status = "default", body = ErrorBody)))]
async fn shutdown(State(app): Shared, bytes: Bytes) -> Answer {
    let request: ShutdownRequest = body(&bytes)?;
    let info = app.info.clone();
    // A task of its own is carried through even if the client goes away.
    let stopped = tokio::spawn(async move {
        if request.machines {
            app.node.end_all().await?;
        }
        app.stopping.send_replace(true);
        Ok::<_, Error>(())
    });
    stopped.await.map_err(|e| Error::Internal(format!("a request failed: {e}")))??;
    Ok(Json(info).into_response())
}

/// Every machine.
#[utoipa::path(get, path = "/machines", tag = "machines",
    responses((status = 200, body = MachineList), (status = "default", body = ErrorBody)))]
async fn list(State(app): Shared) -> Answer {
    look(&app.node, |node| Ok(MachineList { machines: node.list()? })).await
}

/// Creates a machine. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines", tag = "machines", request_body = CreateRequest,
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn create(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: CreateRequest = body(&bytes)?;
    let name = name(&request.name)?;
    operate(&app.node, &headers, Some(name.clone()), move |node, progress| {
        node.create(&name, &request, progress)
    })
    .await
}

/// One machine.
#[utoipa::path(get, path = "/machines/{name}", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn machine(State(app): Shared, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    look(&app.node, move |node| node.info(&name)).await
}

/// Removes a machine that does not run.
#[utoipa::path(delete, path = "/machines/{name}", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = "default", body = ErrorBody)))]
async fn remove(State(app): Shared, headers: HeaderMap, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.remove(&name)).await
}

/// Boots or resumes a machine. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines/{name}/start", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Ready), (status = "default", body = ErrorBody)))]
async fn start(State(app): Shared, headers: HeaderMap, Path(text): Path<String>) -> Answer {
    let (arrived, name) = (Instant::now(), name(&text)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, progress| {
        node.start(&name, arrived, progress)
    })
    .await
}

/// Asks the guest to power off, and waits.
#[utoipa::path(post, path = "/machines/{name}/stop", tag = "machines", params(("name" = String, Path)),
    request_body = StopRequest,
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn stop(State(app): Shared, headers: HeaderMap, Path(text): Path<String>, bytes: Bytes) -> Answer {
    let (name, request) = (name(&text)?, body::<StopRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.stop(&name, request)).await
}

/// Ends a machine at once, whatever else is being done to it.
#[utoipa::path(post, path = "/machines/{name}/kill", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn kill(State(app): Shared, headers: HeaderMap, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    operate(&app.node, &headers, None, move |node, _| node.kill(&name)).await
}

/// Holds a guest.
#[utoipa::path(post, path = "/machines/{name}/pause", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn pause(State(app): Shared, headers: HeaderMap, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.pause(&name)).await
}

/// Lets a guest that is held go on; or takes back a machine that was handed over, on a person's word.
#[utoipa::path(post, path = "/machines/{name}/resume", tag = "machines", params(("name" = String, Path)),
    request_body = ResumeRequest,
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn resume(State(app): Shared, headers: HeaderMap, Path(text): Path<String>, bytes: Bytes) -> Answer {
    let (name, request) = (name(&text)?, body::<ResumeRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, _| match request.here {
        true => node.resume_here(&name),
        false => node.resume(&name),
    })
    .await
}

/// Captures a machine while it runs. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines/{name}/checkpoint", tag = "machines", params(("name" = String, Path)),
    request_body = CheckpointRequest,
    responses((status = 200, body = CheckpointInfo), (status = "default", body = ErrorBody)))]
async fn checkpoint(
    State(app): Shared,
    headers: HeaderMap,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Answer {
    let (name, request) = (name(&text)?, body::<CheckpointRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, progress| {
        node.checkpoint(&name, request, progress)
    })
    .await
}

/// Rolls a machine back to a snapshot of its history and runs it. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines/{name}/restore", tag = "machines", params(("name" = String, Path)),
    request_body = RestoreRequest,
    responses((status = 200, body = Restored), (status = "default", body = ErrorBody)))]
async fn restore(State(app): Shared, headers: HeaderMap, Path(text): Path<String>, bytes: Bytes) -> Answer {
    let (arrived, name, request) = (Instant::now(), name(&text)?, body::<RestoreRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, progress| {
        node.restore(&name, &request, arrived, progress)
    })
    .await
}

/// Makes a new machine of a snapshot of this one. Answers with progress where asked to.
#[utoipa::path(post, path = "/machines/{name}/clone", tag = "machines", params(("name" = String, Path)),
    request_body = CloneRequest,
    responses((status = 200, body = Cloned), (status = "default", body = ErrorBody)))]
async fn clone_machine(
    State(app): Shared,
    headers: HeaderMap,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Answer {
    let (arrived, _, request) = (Instant::now(), name(&text)?, body::<CloneRequest>(&bytes)?);
    let new = name(&request.name)?;
    operate(&app.node, &headers, Some(new.clone()), move |node, progress| {
        node.clone_machine(&new, &request, arrived, progress)
    })
    .await
}

/// Plugs, unplugs or replaces a running machine's network card.
#[utoipa::path(post, path = "/machines/{name}/network", tag = "machines", params(("name" = String, Path)),
    request_body = NetworkRequest,
    responses((status = 200, body = MachineInfo), (status = "default", body = ErrorBody)))]
async fn network(State(app): Shared, headers: HeaderMap, Path(text): Path<String>, bytes: Bytes) -> Answer {
    let (name, request) = (name(&text)?, body::<NetworkRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.network(&name, request)).await
}

/// A machine's snapshots, newest first.
#[utoipa::path(get, path = "/machines/{name}/log", tag = "snapshots", params(("name" = String, Path)),
    responses((status = 200, body = SnapshotList), (status = "default", body = ErrorBody)))]
async fn log(State(app): Shared, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    look(&app.node, move |node| node.log(&name)).await
}

/// Gives a snapshot of the machine's history a tag.
#[utoipa::path(post, path = "/machines/{name}/tags", tag = "snapshots", params(("name" = String, Path)),
    request_body = TagRequest,
    responses((status = 200, body = Tagged), (status = "default", body = ErrorBody)))]
async fn tag(State(app): Shared, headers: HeaderMap, Path(text): Path<String>, bytes: Bytes) -> Answer {
    let (name, request) = (name(&text)?, body::<TagRequest>(&bytes)?);
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.tag(&name, &request)).await
}

/// Takes a tag away.
#[utoipa::path(delete, path = "/machines/{name}/tags/{tag}", tag = "snapshots",
    params(("name" = String, Path), ("tag" = String, Path)),
    responses((status = 200, body = Tagged), (status = "default", body = ErrorBody)))]
async fn untag(State(app): Shared, headers: HeaderMap, Path((text, tag)): Path<(String, String)>) -> Answer {
    let name = name(&text)?;
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.untag(&name, &tag)).await
}

/// Takes a snapshot out of the machine's history.
#[utoipa::path(delete, path = "/machines/{name}/snapshots/{rev}", tag = "snapshots",
    params(("name" = String, Path), ("rev" = String, Path)),
    responses((status = 200, body = Forgotten), (status = "default", body = ErrorBody)))]
async fn forget(State(app): Shared, headers: HeaderMap, Path((text, rev)): Path<(String, String)>) -> Answer {
    let name = name(&text)?;
    operate(&app.node, &headers, Some(name.clone()), move |node, _| node.forget(&name, &rev)).await
}

/// A running machine's screen.
#[utoipa::path(get, path = "/machines/{name}/screenshot", tag = "machines", params(("name" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), (status = "default", body = ErrorBody)))]
async fn screenshot(State(app): Shared, Path(text): Path<String>) -> Answer {
    let name = name(&text)?;
    let node = app.node.clone();
    let busy = node.lock(&name).await;
    let png = blocking(move || {
        let _busy = busy;
        node.screenshot(&name)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

/// What a revision names.
#[utoipa::path(get, path = "/snapshots/{rev}", tag = "snapshots", params(("rev" = String, Path)),
    responses((status = 200, body = Shown), (status = "default", body = ErrorBody)))]
async fn snapshot(State(app): Shared, Path(rev): Path<String>) -> Answer {
    look(&app.node, move |node| node.show(&rev)).await
}

/// What a snapshot is compared with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    /// Another snapshot; without it the one it follows, or else nothing.
    from: Option<String>,
}

/// How a snapshot differs from another one. Answers with progress where asked to.
#[utoipa::path(get, path = "/snapshots/{rev}/diff", tag = "snapshots", params(("rev" = String, Path), DiffQuery),
    responses((status = 200, body = Difference), (status = "default", body = ErrorBody)))]
async fn diff(
    State(app): Shared,
    headers: HeaderMap,
    Path(rev): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Answer {
    operate(&app.node, &headers, None, move |node, progress| node.diff(query.from.as_deref(), &rev, progress))
        .await
}

/// Hashes everything again. Answers with progress where asked to.
#[utoipa::path(post, path = "/verify", tag = "snapshots", request_body = VerifyRequest,
    responses((status = 200, body = VerifyResult), (status = "default", body = ErrorBody)))]
async fn verify(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: VerifyRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.verify(&request, progress)).await
}

/// Applies policies and removes what nothing needs. Answers with progress where asked to.
#[utoipa::path(post, path = "/gc", tag = "snapshots", request_body = GcRequest,
    responses((status = 200, body = GcResult), (status = "default", body = ErrorBody)))]
async fn gc(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: GcRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.gc(&request, progress)).await
}

/// Puts a snapshot into a depot: what is not there yet. Answers with progress where asked to.
#[utoipa::path(post, path = "/push", tag = "depots", request_body = PushRequest,
    responses((status = 200, body = Pushed), (status = "default", body = ErrorBody)))]
async fn push(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: PushRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.push(&request, progress)).await
}

/// Takes snapshots from a depot: what is not here yet. Answers with progress where asked to.
#[utoipa::path(post, path = "/pull", tag = "depots", request_body = PullRequest,
    responses((status = 200, body = Pulled), (status = "default", body = ErrorBody)))]
async fn pull(State(app): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: PullRequest = body(&bytes)?;
    operate(&app.node, &headers, None, move |node, progress| node.pull(&request, progress)).await
}

/// The nodes whose snapshots may run here.
#[utoipa::path(get, path = "/trust", tag = "depots",
    responses((status = 200, body = TrustList), (status = "default", body = ErrorBody)))]
async fn trusted(State(app): Shared) -> Answer {
    look(&app.node, |node| Ok(TrustList { trusted: node.trusted()?.into_iter().collect() })).await
}

/// Trusts a node, or no longer.
#[utoipa::path(post, path = "/trust", tag = "depots", request_body = TrustRequest,
    responses((status = 200, body = TrustList), (status = "default", body = ErrorBody)))]
async fn trust(State(app): Shared, bytes: Bytes) -> Answer {
    let request: TrustRequest = body(&bytes)?;
    look(&app.node, move |node| node.trust(&request)).await
}
