//! What others ask of this node. A stranger may ask to be let in, and nothing else.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use tokio::runtime::Handle;
use watari_types::{ErrorKind, ErrorReport, MachineId, NodeId};

use crate::Error;
use crate::exchange::{Link, Stream};
use crate::handover::Arriving;
use crate::lanes;
use crate::mesh::Mesh;
use crate::peers::node_of;
use crate::way::Way;
use crate::wire::{self, Ask};

/// How long somebody may take to say what they want, and a stranger to be let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accepts connections until it is closed.
pub(crate) async fn accept(mesh: Mesh) {
    while let Some(incoming) = mesh.0.peers.accept().await {
        let mesh = mesh.clone();
        tokio::spawn(async move {
            match incoming.await {
                Ok(connection) if mesh.is_member(node_of(&connection)) => {
                    mesh.0.peers.opened(&connection);
                    serve(mesh, connection).await;
                }
                Ok(connection) => {
                    let _ = tokio::time::timeout(PATIENCE, serve_stranger(mesh, connection.clone())).await;
                    connection.close(VarInt::from_u32(1), b"not a member");
                }
                Err(error) => tracing::debug!("a connection did not come about: {error}"),
            }
        });
    }
}

/// Answers what a member asks until the connection ends, or the member is none any more.
pub(crate) async fn serve(mesh: Mesh, connection: Connection) {
    let node = node_of(&connection);
    loop {
        tokio::select! {
            streams = connection.accept_bi() => {
                let Ok((send, receive)) = streams else { return };
                tokio::spawn(handle(mesh.clone(), node, send, receive));
            }
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                mesh.0.pulse.heard(node, datagram);
            }
        }
    }
}

async fn serve_stranger(mesh: Mesh, connection: Connection) {
    let node = node_of(&connection);
    let Ok((send, receive)) = connection.accept_bi().await else { return };
    handle(mesh, node, send, receive).await;
    // Until it has read the answer.
    connection.closed().await;
}

async fn handle(mesh: Mesh, node: NodeId, mut send: SendStream, mut receive: RecvStream) {
    let is_member = mesh.is_member(node);
    let program = mesh.0.options.program.clone();
    let asked = tokio::time::timeout(PATIENCE, wire::asked(&mut receive, is_member, &program)).await;
    let done = match asked.unwrap_or_else(|late| Err(Error::cut(late))) {
        Ok(Ask::Join { secret }) => {
            let admitted = mesh.admit(node, &secret).await;
            reply(node, &mut send, admitted).await
        }
        Ok(_) if !is_member => reply::<()>(node, &mut send, Err(Error::Unwanted(stranger(node)))).await,
        Ok(Ask::Roll { digest, records }) => {
            let heard = mesh.hear(node, digest, records.as_deref()).await;
            reply(node, &mut send, heard).await
        }
        Ok(Ask::Leave) => {
            let taken_out = mesh.take_out(node).await;
            let told = reply(node, &mut send, taken_out).await;
            let _ = send.finish();
            let _ = tokio::time::timeout(PATIENCE, send.stopped()).await;
            mesh.apply().await;
            told
        }
        Ok(Ask::Handover { machine, call }) => {
            let host = mesh.0.host.clone();
            let done = tokio::task::spawn_blocking(move || host.handover(node, machine, *call)).await;
            reply(node, &mut send, done.map_err(|_| Error::Internal("a machine could not be handed over")))
                .await
        }
        Ok(Ask::Holdings) => {
            let host = mesh.0.host.clone();
            let holdings = tokio::task::spawn_blocking(move || host.holdings()).await;
            reply(
                node,
                &mut send,
                holdings.map_err(|_| Error::Internal("what is held here could not be told")),
            )
            .await
        }
        Ok(Ask::Migrate { machine, arriving }) => {
            return receive_machine(mesh, node, machine, *arriving, send, receive).await;
        }
        Ok(Ask::Lend { machine }) => return lend(mesh, node, machine, send, receive).await,
        Ok(Ask::Watch { machine, may_control }) => {
            return watch(mesh, node, machine, may_control, send, receive).await;
        }
        Ok(Ask::Take { lanes }) => return take(mesh, node, lanes, send, receive).await,
        Ok(Ask::Give { rev, lanes }) => return give(mesh, node, rev, lanes, send, receive).await,
        Ok(Ask::Lane { name }) => {
            match tokio::time::timeout(PATIENCE, mesh.0.lanes.inlet(node, name)).await {
                Ok(inlet) => inlet.bring(&Handle::current(), receive, Stream::Lane),
                Err(_) => tracing::debug!(%node, "a lane came that nobody waits for"),
            }
            return;
        }
        Err(error) => reply::<()>(node, &mut send, Err(error)).await,
    };
    if let Err(error) = done {
        tracing::debug!(%node, "{error}");
    }
    let _ = send.finish();
}

fn stranger(node: NodeId) -> ErrorReport {
    let hint = "ask for a ticket: `watari invite` on a node of the mesh, then `watari join TICKET`";
    ErrorReport::new(ErrorKind::Forbidden, format!("node {node} does not belong to this mesh"), hint)
}

/// Answers, and notes what was refused.
async fn reply<T: serde::Serialize>(
    node: NodeId,
    send: &mut SendStream,
    answer: Result<T, Error>,
) -> Result<(), Error> {
    if let Err(error) = &answer {
        tracing::warn!(%node, "was refused: {error}");
    }
    wire::answer(send, answer.map_err(|error| error.report())).await
}

async fn receive_machine(
    mesh: Mesh,
    node: NodeId,
    machine: MachineId,
    arriving: Arriving,
    send: SendStream,
    receive: RecvStream,
) {
    let host = mesh.0.host.clone();
    let ready = tokio::task::spawn_blocking(move || host.receive(node, machine, arriving)).await;
    let ready = ready.unwrap_or_else(|_| Err(Error::Internal("a machine could not be taken").report()));
    let ready = ready.map(|(keeper, footing)| (footing, keeper));
    link(node, machine, ready, Way::over(send, receive)).await;
}

async fn lend(mesh: Mesh, node: NodeId, machine: MachineId, send: SendStream, receive: RecvStream) {
    let host = mesh.0.host.clone();
    let keeper = tokio::task::spawn_blocking(move || host.lend(node, machine)).await;
    let keeper = keeper.unwrap_or_else(|_| Err(Error::Internal("a machine could not be lent").report()));
    // Somebody's guest waits for it.
    let way = Way::over(send, receive).before_others();
    link(node, machine, keeper.map(|keeper| ((), keeper)), way).await;
}

async fn watch(
    mesh: Mesh,
    node: NodeId,
    machine: MachineId,
    may_control: bool,
    send: SendStream,
    receive: RecvStream,
) {
    let host = mesh.0.host.clone();
    let visit = tokio::task::spawn_blocking(move || host.watch(machine, may_control)).await;
    let visit = visit.unwrap_or_else(|_| Err(Error::Internal("a machine cannot be watched").report()));
    let way = Way::over(send, receive).before_others();
    link(node, machine, visit.map(|(here, name)| (name, here)), way).await;
}

/// Answers, and passes on what is said of a machine on a socket here and by the other node.
async fn link<T: serde::Serialize>(
    node: NodeId,
    machine: MachineId,
    answer: Result<(T, UnixStream), ErrorReport>,
    mut way: Way,
) {
    let (answer, here) = match answer {
        Ok((answer, here)) => (Ok(answer), Some(here)),
        Err(report) => (Err(Error::Unwanted(report)), None),
    };
    if reply(node, &mut way.send, answer).await.is_ok()
        && let Some(here) = here
        && let Err(error) = way.pass_on(here).await
    {
        tracing::debug!(%node, %machine, "what is said of it is not passed on any more: {error}");
    }
}

async fn take(mesh: Mesh, node: NodeId, lanes: [u8; 16], mut send: SendStream, receive: RecvStream) {
    if wire::answer(&mut send, Ok(())).await.is_err() {
        return;
    }
    let mut link = Link::over(&Handle::current(), receive, send, None);
    let expected = mesh.0.lanes.expect(node, lanes, link.inlet());
    link.keep(expected);
    let _ = tokio::task::spawn_blocking(move || mesh.0.host.take(node, &mut link)).await;
}

async fn give(
    mesh: Mesh,
    node: NodeId,
    rev: String,
    lanes: [u8; 16],
    mut send: SendStream,
    receive: RecvStream,
) {
    if wire::answer(&mut send, Ok(())).await.is_err() {
        return;
    }
    let mut link = Link::over(&Handle::current(), receive, send, None);
    if let Err(error) = lanes::open(&mesh, node, lanes, &mut link).await {
        tracing::debug!(%node, "{error}");
        return;
    }
    let _ = tokio::task::spawn_blocking(move || mesh.0.host.give(node, &rev, &mut link)).await;
}
