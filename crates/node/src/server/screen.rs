//! Machines' screens: as they change, and small; and the addresses to see them at.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use watari_screen::clipboard;

use super::App;
use super::access::Access;
use super::answer::{Answer, look};
use super::routes::name;
use crate::Error;
use crate::api::{ErrorBody, ScreenLinks};
use crate::screens::attend;

/// What a viewer says is short, a key, an update's number; but for a text for the clipboard, in which some characters take two.
const LONGEST: usize = 2 * clipboard::LONGEST + (16 << 10);

/// A machine's screen, as a WebSocket: docs/SCREEN.md says what goes over it. Whoever may only watch cannot do anything to the machine.
#[utoipa::path(get, path = "/machines/{name}/screen", tag = "screens", params(("name" = String, Path)),
    responses((status = 101, description = "the screen"), (status = "default", body = ErrorBody)))]
pub(super) async fn screen(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(text): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Answer {
    let machine = name(&text)?;
    let (_, file) = app.node.machine(&machine)?;
    if !access.may_watch(file.config.id) {
        return Ok((StatusCode::FORBIDDEN, "this address is for watching another machine\n").into_response());
    }
    let (node, may_control, stopped) = (app.node.clone(), access.is_full(), app.stopped());
    let upgrade = upgrade.max_message_size(LONGEST).max_frame_size(LONGEST);
    Ok(upgrade.on_upgrade(async move |socket| {
        let left = node.clone().left(machine.clone(), file.config.id);
        let ended = async {
            tokio::select! { () = stopped => {}, () = left => {} }
        };
        attend(node, machine, may_control, socket, ended).await;
    }))
}

/// What a running machine shows, as a small JPEG.
#[utoipa::path(get, path = "/machines/{name}/thumbnail", tag = "screens", params(("name" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/jpeg"), (status = "default", body = ErrorBody)))]
pub(super) async fn thumbnail(State(app): State<Arc<App>>, Path(text): Path<String>) -> Answer {
    let machine = name(&text)?;
    let (_, file) = app.node.machine(&machine)?;
    let jpeg = app.node.screens.stage(&machine).thumbnail(&app.node).await?;
    let jpeg = jpeg.ok_or_else(|| Error::WrongState {
        name: file.name,
        state: "not running".to_owned(),
        hint: format!("`watari start {machine}` first"),
    })?;
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Bytes::from(jpeg)).into_response())
}

/// Where a browser sees a machine's screen.
#[utoipa::path(get, path = "/machines/{name}/screen/links", tag = "screens", params(("name" = String, Path)),
    responses((status = 200, body = ScreenLinks), (status = "default", body = ErrorBody)))]
pub(super) async fn links(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(text): Path<String>,
) -> Answer {
    let machine = name(&text)?;
    let shared = app.clone();
    look(&app.node, move |node| {
        let (_, file) = node.machine(&machine)?;
        let page = format!("{}/screen/?machine={machine}", shared.origin);
        // A page in a browser has no business with the token that it came with.
        let token =
            if access == Access::Owner { format!("&token={}", shared.tokens.node()) } else { String::new() };
        Ok(ScreenLinks {
            url: format!("{page}{token}"),
            view_only_url: format!("{page}&token={}", shared.tokens.view_only(file.config.id)),
        })
    })
    .await
}
