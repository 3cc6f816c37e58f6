//! Consoles, with a unix socket of the test's own where QEMU's would be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use watari_keeper::record::Phase;

use super::*;
use crate::api::ConsoleNews;

/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine without a guest: its files, and a server at which any number may attach to its console.
struct Bench {
    folder: TempDir,
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
    console: Arc<Mutex<Weak<Console>>>,
}

impl Bench {
    async fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let console: Arc<Mutex<Weak<Console>>> = Arc::default();
        let (kept, path) = (console.clone(), folder.path().to_owned());
        let attached = async move |upgrade: WebSocketUpgrade| {
            let console = hold(&kept).upgrade().unwrap_or_else(|| Arc::new(Hub::begin(place(path))));
            *hold(&kept) = Arc::downgrade(&console);
            upgrade.on_upgrade(|socket| attend(console, socket, std::future::pending()))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", any(attached));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Bench { folder, address, server, console }
    }

    /// Begins a run: what QEMU listens at. The machine runs while that is there.
    fn run(&self) -> UnixListener {
        let socket = self.folder.path().join("serial");
        let _ = std::fs::remove_file(&socket);
        UnixListener::bind(socket).unwrap()
    }

    fn end(&self) {
        std::fs::remove_file(self.folder.path().join("serial")).unwrap();
    }

    fn log(&self, printed: &[u8]) {
        let path = self.folder.path().join("serial.log");
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(printed).unwrap();
    }

    /// As QEMU prints: to who is connected, and then to the log.
    async fn print(&self, qemu: &mut UnixStream, printed: &[u8]) {
        within(qemu.write_all(printed)).await.unwrap();
        self.log(printed);
    }

    async fn attach(&self) -> Attached {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = client_async(format!("ws://{}/", self.address), stream).await.unwrap();
        Attached { socket, printed: Vec::new(), begun: Vec::new(), connected: false }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn place(folder: PathBuf) -> Place {
    let socket = folder.join("serial");
    let doing = {
        let socket = socket.clone();
        move || {
            let is_live = socket.exists();
            let phase = if is_live { Phase::Running } else { Phase::Stopped };
            Doing { phase, reason: String::new(), is_live }
        }
    };
    Place { socket, log: folder.join("serial.log"), doing: Box::new(doing) }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("waited in vain")
}

/// Somebody who is attached.
struct Attached {
    socket: WebSocketStream<TcpStream>,
    printed: Vec<u8>,
    /// How many bytes were left out each time it began.
    begun: Vec<u64>,
    connected: bool,
}

impl Attached {
    async fn hear(&mut self) {
        match within(self.socket.next()).await.unwrap().unwrap() {
            Message::Binary(bytes) => self.printed.extend_from_slice(&bytes),
            Message::Text(text) => match serde_json::from_str(&text).unwrap() {
                ConsoleNews::Begin { skipped } => self.begun.push(skipped),
                ConsoleNews::State(state) => self.connected = state.connected,
            },
            _ => {}
        }
    }

    async fn hear_until(&mut self, enough: impl Fn(&Attached) -> bool) {
        while !enough(self) {
            self.hear().await;
        }
    }

    async fn hear_to(&mut self, end: &[u8]) {
        self.hear_until(|heard| heard.printed.ends_with(end)).await;
    }

    async fn say(&mut self, typed: &[u8]) {
        self.socket.send(Message::Binary(typed.to_vec().into())).await.unwrap();
    }
}

async fn read(qemu: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within(qemu.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn all_who_are_attached_see_the_same_and_any_of_them_types() {
    let bench = Bench::new().await;
    bench.log(b"before\n");
    let qemu = bench.run();
    let (mut one, mut two) = (bench.attach().await, bench.attach().await);
    let (mut qemu, _) = within(qemu.accept()).await.unwrap();
    bench.print(&mut qemu, b"now\n").await;
    for attached in [&mut one, &mut two] {
        attached.hear_to(b"now\n").await;
        assert_eq!(
            (attached.printed.as_slice(), attached.begun.as_slice()),
            (&b"before\nnow\n"[..], &[0][..])
        );
    }
    one.say(b"a").await;
    assert_eq!(read(&mut qemu, 1).await, b"a");
    two.say(b"b").await;
    assert_eq!(read(&mut qemu, 1).await, b"b");
    let mut three = bench.attach().await;
    three.hear_to(b"now\n").await;
    assert_eq!(three.printed, b"before\nnow\n");
}

#[tokio::test]
async fn what_is_printed_while_a_connection_comes_about_is_neither_lost_nor_said_twice() {
    let bench = Bench::new().await;
    bench.log(b"one\n");
    let qemu = bench.run();
    let mut attached = bench.attach().await;
    attached.hear_to(b"one\n").await;
    attached.hear_until(|heard| heard.connected).await;
    // QEMU has not taken the connection on.
    bench.log(b"two\n");
    attached.hear_to(b"two\n").await;
    // It does, between two lines.
    bench.log(b"three\n");
    let (mut qemu, _) = within(qemu.accept()).await.unwrap();
    bench.print(&mut qemu, b"four\n").await;
    attached.hear_to(b"four\n").await;
    for line in 5..200 {
        bench.print(&mut qemu, format!("{line}\n").as_bytes()).await;
    }
    attached.hear_to(b"199\n").await;
    assert_eq!(attached.printed, std::fs::read(bench.folder.path().join("serial.log")).unwrap());
    assert_eq!(attached.begun, [0]);
}

#[tokio::test]
async fn who_takes_nothing_holds_up_neither_the_guest_nor_others_and_begins_anew_with_the_newest() {
    let bench = Bench::new().await;
    let qemu = bench.run();
    let (mut quick, mut slow) = (bench.attach().await, bench.attach().await);
    let (mut qemu, _) = within(qemu.accept()).await.unwrap();
    slow.hear_until(|heard| heard.connected).await;
    let mut all = Vec::new();
    // More than lies in any buffer on the way.
    while all.len() < 32 << 20 {
        let lines: String = (0..1000).map(|line| format!("{} and {line}\n", all.len())).collect();
        bench.print(&mut qemu, lines.as_bytes()).await;
        all.extend(lines.into_bytes());
        // The quick one has taken it before there is more.
        quick.hear_until(|heard| heard.printed.len() == all.len()).await;
    }
    assert!(quick.printed == all && quick.begun == [0]);

    slow.hear_to(&all[all.len() - 100..]).await;
    assert_eq!(slow.begun.len(), 2);
    assert_eq!(slow.printed.len() as u64 + slow.begun[1], all.len() as u64);
    bench.print(&mut qemu, b"the end").await;
    quick.hear_to(b"the end").await;
    slow.hear_to(b"the end").await;
    assert_eq!(slow.begun.len(), 2);
}

#[tokio::test]
async fn the_guest_prints_while_nobody_takes_anything() {
    let bench = Bench::new().await;
    let qemu = bench.run();
    let _slow = bench.attach().await;
    let (mut qemu, _) = within(qemu.accept()).await.unwrap();
    let line = [b'.'; 1 << 16];
    for _ in 0..512 {
        bench.print(&mut qemu, &line).await;
    }
}

#[tokio::test]
async fn who_is_attached_stays_while_one_run_follows_another() {
    let bench = Bench::new().await;
    let qemu = bench.run();
    let mut attached = bench.attach().await;
    let (mut first, _) = within(qemu.accept()).await.unwrap();
    bench.print(&mut first, b"first\n").await;
    attached.hear_until(|heard| heard.connected).await;
    bench.end();
    drop((first, qemu));
    attached.hear_until(|heard| !heard.connected).await;
    assert_eq!(attached.printed, b"first\n", "news come after what was printed before");
    // To nobody. What follows it comes only once that is gone.
    attached.say(b"lost").await;
    let taken = || {
        let console = hold(&bench.console).upgrade().unwrap();
        console.typed.capacity() == console.typed.max_capacity()
    };
    within(async {
        attached.socket.send(Message::Ping(Vec::new().into())).await.unwrap();
        while !matches!(attached.socket.next().await.unwrap().unwrap(), Message::Pong(_)) {}
        while !taken() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let qemu = bench.run();
    bench.log(b"boots\n");
    let (mut second, _) = within(qemu.accept()).await.unwrap();
    bench.print(&mut second, b"second\n").await;
    attached.hear_to(b"second\n").await;
    attached.hear_until(|heard| heard.connected).await;
    assert_eq!((attached.printed.as_slice(), attached.begun.len()), (&b"first\nboots\nsecond\n"[..], 1));
    attached.say(b"x").await;
    assert_eq!(read(&mut second, 1).await, b"x");
}

#[tokio::test]
async fn the_socket_is_held_while_somebody_is_attached_and_what_that_one_typed_last_arrives() {
    let bench = Bench::new().await;
    let qemu = bench.run();
    for round in 0..3 {
        let mut attached = bench.attach().await;
        attached.say(b"bye").await;
        attached.socket.close(None).await.unwrap();
        drop(attached);
        let (mut run, _) = within(qemu.accept()).await.unwrap();
        let mut heard = Vec::new();
        within(run.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"bye", "round {round}");
    }
    assert!(hold(&bench.console).upgrade().is_none());
}
