//! Machines' screens and consoles where these live on another node: whoever asks for one here is answered there.
//!
//! The request goes on over the mesh as it is; so does what a WebSocket carries. There it comes to the same routes as any other,
//! and to no others than these.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Extension, Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use watari_mesh::Way;
use watari_types::{MachineId, MachineName, NodeId};

use super::access::Access;
use super::web::of_machine;
use super::{App, routes};
use crate::mesh::{Visit, Visitor};
use crate::node::Node;

/// What may be asked from elsewhere, besides the screen, by those who may do something to the machine.
const MORE: [&str; 2] = ["console", "thumbnail"];
/// So many wait to be let in.
const WAITING: usize = 16;

/// Answers those who watch machines of this node from others, until the daemon stops.
pub(super) fn serve(app: Arc<App>) -> impl Future<Output = io::Result<()>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    // Nobody else sets it, once.
    let _ = app.node.visits.set(sender);
    let stopped = app.stopped();
    let router: Router = routes::router(app).layer(from_fn(admit));
    let router = router.into_make_service_with_connect_info::<Visitor>();
    axum::serve(Visits(receiver), router).with_graceful_shutdown(stopped).into_future()
}

/// Where they come in.
struct Visits(mpsc::Receiver<Visit>);

impl Listener for Visits {
    type Io = UnixStream;
    type Addr = Visitor;

    async fn accept(&mut self) -> (UnixStream, Visitor) {
        while let Some(Visit { visitor, socket }) = self.0.recv().await {
            match socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)) {
                Ok(socket) => return (socket, visitor),
                Err(error) => tracing::warn!(machine = %visitor.name, "nobody is let in: {error}"),
            }
        }
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Visitor> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Connected<IncomingStream<'_, Visits>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Visits>) -> Visitor {
        stream.remote_addr().clone()
    }
}

/// Lets see what a visitor may see, and nothing else.
async fn admit(ConnectInfo(visitor): ConnectInfo<Visitor>, mut request: Request, next: Next) -> Response {
    let is_his = of_machine(request.uri()).is_some_and(|(name, what)| {
        name == visitor.name.as_str() && (what == "screen" || visitor.may_control && MORE.contains(&what))
    });
    if !is_his || request.method() != Method::GET {
        return (StatusCode::FORBIDDEN, "from another node a machine may be watched, and nothing else\n")
            .into_response();
    }
    let access = match visitor.may_control {
        true => Access::Person,
        false => Access::Watcher(vec![visitor.machine]),
    };
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// Has a request for a machine that lives on another node answered there. Where that one does not answer it is answered here, by
/// what is known.
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Path(name): Path<String>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_visitor = request.extensions().get::<ConnectInfo<Visitor>>().is_some();
    let Some((node, machine)) =
        home_of(&app.node, &name).filter(|(_, machine)| !is_visitor && access.may_watch(*machine))
    else {
        return next.run(request).await;
    };
    let passed = async {
        let (way, name) = app.node.visit(node, machine, access.is_full()).await?;
        pass_on(way, &name, &mut request).await
    };
    match passed.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%name, %node, error, "it cannot be watched there");
            next.run(request).await
        }
    }
}

/// The other node that a machine lives on, if it does.
fn home_of(node: &Node, name: &str) -> Option<(NodeId, MachineId)> {
    let name: MachineName = name.parse().ok()?;
    if node.live(&name).is_some() {
        return None;
    }
    let machine = node.machine(&name).ok()?.1.config.id;
    Some((node.runs_at(machine)?, machine))
}

async fn pass_on(
    way: Way,
    name: &MachineName,
    request: &mut Request,
) -> Result<Response, Box<dyn StdError + Send + Sync>> {
    let (mut there, connection) = http1::handshake(TokioIo::new(way.into_stream())).await?;
    tokio::spawn(connection.with_upgrades());
    let what = request.uri().path().rsplit('/').next().unwrap_or_default();
    let mut asked = Request::get(format!("/api/v1/machines/{name}/{what}")).header(header::HOST, "localhost");
    for (name, value) in request.headers() {
        let is_of_websocket = name.as_str().starts_with("sec-websocket-");
        if is_of_websocket || [header::CONNECTION, header::UPGRADE].contains(name) {
            asked = asked.header(name, value);
        }
    }
    let mut answer = there.send_request(asked.body(Body::empty())?).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(here) = request.extensions_mut().remove::<OnUpgrade>()
    {
        let there = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (here, there) = tokio::try_join!(here, there)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut TokioIo::new(there)).await?;
            Ok::<_, Box<dyn StdError + Send + Sync>>(())
        });
    }
    Ok(answer.map(Body::new))
}
