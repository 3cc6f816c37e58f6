//! Machines' serial consoles.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};

use super::App;
use super::answer::Answer;
use super::routes::name;
use crate::api::{ConsoleNews, ErrorBody};
use crate::consoles::attend;

/// What is typed or pasted at once, in bytes. Who has more says it in several messages.
const LONGEST: usize = 64 << 10;

/// A machine's serial console, as a WebSocket for any number of clients at once. Binary messages are bytes, both ways; text is news, as
/// JSON. It stays open while the machine is restored or does not run.
#[utoipa::path(get, path = "/machines/{name}/console", tag = "screens", params(("name" = String, Path)),
    responses((status = 101, description = "the console; its news:", body = ConsoleNews),
        (status = "default", body = ErrorBody)))]
pub(super) async fn console(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Answer {
    let machine = name(&text)?;
    let (_, file) = app.node.machine(&machine)?;
    let (node, stopped) = (app.node.clone(), app.stopped());
    let upgrade = upgrade.max_message_size(LONGEST).max_frame_size(LONGEST);
    Ok(upgrade.on_upgrade(async move |socket| {
        let console = node.consoles.console(&node, &machine);
        let left = node.left(machine, file.config.id);
        let ended = async {
            tokio::select! { () = stopped => {}, () = left => {} }
        };
        attend(console, socket, ended).await;
    }))
}
