//! One who is attached to a console, from when it comes until it goes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::watch;

use super::{Console, Line};
use crate::api::ConsoleNews;

/// A guest prints byte by byte: what comes in so short a time is told at once.
const BREATH: Duration = Duration::from_millis(4);

/// How long somebody may take to hear that this is the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Attaches whoever is at the other end of `socket` until that one goes away or it has `ended`.
pub(crate) async fn attend(console: Arc<Console>, socket: WebSocket, ended: impl Future<Output = ()>) {
    let (mut sink, stream) = socket.split();
    tokio::select! {
        said = say(&mut sink, console.line.clone()) => {
            tracing::debug!(?said, "nobody listens to a console any more");
        }
        () = hear(stream, &console) => {}
        () = ended => {}
    }
    let _ = tokio::time::timeout(GOODBYE, sink.close()).await;
}

/// Tells what is printed, and how things are after all that was printed by then.
async fn say(
    sink: &mut SplitSink<WebSocket, Message>,
    mut line: watch::Receiver<Line>,
) -> Result<(), axum::Error> {
    let (mut at, mut told) = (None, None);
    line.mark_changed();
    while line.changed().await.is_ok() {
        let (end, state) = {
            let line = line.borrow_and_update();
            (line.recent.end(), line.state.clone())
        };
        while at.is_none_or(|at| at < end) {
            let piece = line.borrow().recent.next(at);
            let Some(piece) = piece else { break };
            if let Some(skipped) = piece.begins {
                sink.send(news(&ConsoleNews::Begin { skipped })).await?;
            }
            sink.send(Message::Binary(piece.bytes.into())).await?;
            at = Some(piece.end);
        }
        if told.as_ref() != Some(&state) {
            sink.send(news(&ConsoleNews::State(state.clone()))).await?;
            told = Some(state);
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}

fn news(news: &ConsoleNews) -> Message {
    Message::Text(serde_json::to_string(news).unwrap_or_default().into())
}

/// Passes on what is typed. Whoever says anything else goes.
async fn hear(mut stream: SplitStream<WebSocket>, console: &Console) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => {
                if console.typed.send(bytes).await.is_err() {
                    return;
                }
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(_) | Message::Close(_) => return,
        }
    }
}
