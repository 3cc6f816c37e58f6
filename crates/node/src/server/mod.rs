//! The API over HTTP: on a unix socket for the command line, and on 127.0.0.1, behind a token, for the web page.

mod access;
mod answer;
mod console;
mod core;
mod exports;
mod mesh;
mod pages;
mod place;
mod routes;
mod screen;
mod visits;
mod web;

use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use watari_keeper::Settings;
use watari_keeper::home::Home;
use watari_keeper::lock;

use crate::api::NodeInfo;
use crate::node::{Node, Options};
use crate::teleport;
use crate::{Error, Result};
use access::Tokens;
use place::Place;

/// How long requests under way may take to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long the daemon waits for its machines' keepers before it answers. A keeper that is slower than that is
/// found nevertheless; only its machine has to wait.
const FIND_KEEPERS: Duration = Duration::from_secs(2);

/// What every request can reach.
pub(crate) struct App {
    pub(crate) node: Arc<Node>,
    pub(crate) info: NodeInfo,
    pub(crate) tokens: Tokens,
    /// Where the web page is, without a path.
    pub(crate) origin: String,
    /// What browsers may call it besides.
    names: Vec<String>,
    /// Becomes true when the daemon is to stop.
    stopping: watch::Sender<bool>,
}

impl App {
    /// Completes when the daemon is to stop.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the sender is gone, and the daemon with it.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

/// Runs the daemon until it is told to stop, by `POST node/shutdown`, SIGTERM or SIGINT. Its machines run on.
/// `ready` is called once it answers.
///
/// # Errors
/// [`Error::HomeInUse`] if another daemon serves the home, and whatever keeps it from opening its home, its store
/// or its sockets.
pub fn serve(options: Options, ready: impl FnOnce(&NodeInfo)) -> Result<()> {
    let home = Home::open(&options.home, &options.tmpfs)?;
    // This process is the only daemon of its home for as long as the file is open.
    let owned = lock::own(&home.node_file("lock"))?;
    let _lock = owned.ok_or_else(|| Error::HomeInUse(home.root().to_owned()))?;
    let port = options.port;
    let node = Arc::new(Node::open(home, options)?);
    node.remove_old_exports()?;
    node.remove_old_ephemerals()?;
    node.sweep_heads();
    node.keep_house()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start threads for", node.home.root()))?;
    let served = runtime.block_on(run(node.clone(), port, ready));
    // Operations under way finish: dropping the runtime waits for them.
    drop(runtime);
    node.sweep_heads();
    served
}

async fn run(node: Arc<Node>, port: u16, ready: impl FnOnce(&NodeInfo)) -> Result<()> {
    let unix = listen(&node.home.node_socket())?;
    let settings = Settings::load(&node.home)?.web;
    let place = Place::open(&settings, port, &node.home)?;
    let tokens = Tokens::open(&node.home.node_file("web-token"))?;
    let origin = place.origin.clone();
    let info = NodeInfo {
        node_id: node.id,
        api: node.home.node_socket(),
        web_url: format!("{origin}/?token={}", tokens.node()),
        home: node.home.root().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    };
    let names = settings.names;
    let stopping = watch::Sender::new(false);
    let app = Arc::new(App { node: node.clone(), info, tokens, origin: origin.clone(), names, stopping });
    find_keepers(&node).await?;
    let visits = visits::serve(app.clone());
    node.open_mesh().await;
    tokio::spawn(teleport::settle_offers(Arc::downgrade(&node)));
    tokio::spawn(stop_on_signals(app.clone()));
    let everything = routes::router(app.clone()).layer(axum::middleware::from_fn(web::own));
    let api = axum::serve(unix, everything).with_graceful_shutdown(app.stopped());
    let page = place.serve(web::router(app.clone()), app.stopped());
    tracing::info!(home = %node.home.root().display(), origin, "the daemon answers");
    ready(&app.info);
    let serving = async { tokio::join!(api.into_future(), page, visits) };
    tokio::select! {
        (api, page, visits) = serving => api.and(page).and(visits).map_err(Error::io("serve", &app.info.api))?,
        () = async { app.stopped().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("stopped with connections still open");
        }
    }
    if let Some(mesh) = node.in_mesh() {
        mesh.close().await;
    }
    let _ = fs::remove_file(&app.info.api);
    tracing::info!("the daemon stopped");
    Ok(())
}

/// Listens where a daemon before us may have left its socket. The home's lock is held, so it is nobody else's.
fn listen(path: &Path) -> Result<UnixListener> {
    if path.exists() {
        fs::remove_file(path).map_err(Error::io("remove", path))?;
    }
    let listener = UnixListener::bind(path).map_err(Error::io("listen on", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(Error::io("protect", path))?;
    Ok(listener)
}

/// Takes every machine's lock before the first request can, then finds its keeper again or settles that there is
/// none.
async fn find_keepers(node: &Arc<Node>) -> Result<()> {
    let mut settling = Vec::new();
    for name in node.home.machine_names()? {
        let busy = node.lock(&name).await;
        let node = node.clone();
        settling.push(tokio::task::spawn_blocking(move || {
            let _busy = busy;
            if let Err(error) = node.settle(&name) {
                tracing::error!(%name, error = &error as &dyn std::error::Error, "cannot settle");
            }
        }));
    }
    let _ = tokio::time::timeout(FIND_KEEPERS, futures_util::future::join_all(settling)).await;
    Ok(())
}

async fn stop_on_signals(app: Arc<App>) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    app.stopping.send_replace(true);
}
