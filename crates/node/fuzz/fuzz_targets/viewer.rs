//! libFuzzer in the place of a viewer who has been let in. `scripts/fuzz viewer` runs it.
//!
//! An input is all that one says over the WebSocket of a machine's screen, if its first byte is even, or else of its console. The daemon
//! is a real one, in this process, with a machine that does not run; over its unix socket it lets in whoever comes. It must hang up
//! when the viewer has, and no thread of it may panic, which libFuzzer takes for a crash. What it still does then may be found with
//! the next input. `crates/cli/tests/cli/viewers` has what else must hold.

#![no_main]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use watari_node::{Options, serve};

/// Less than libFuzzer has.
const PATIENCE: Duration = Duration::from_secs(30);

static HOME: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("watari-fuzz-{}", std::process::id())));

/// The daemon's socket.
static DAEMON: LazyLock<PathBuf> = LazyLock::new(start);

fuzz_target!(init: LazyLock::force(&DAEMON), |input: &[u8]| {
    let Some((to, said)) = input.split_first() else { return };
    let mut stream = come(if to % 2 == 0 { "screen" } else { "console" });
    // A socket holds as much. The daemon may have heard enough before.
    let _ = stream.write_all(said);
    let _ = stream.shutdown(Shutdown::Write);
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the daemon does not hang up");
    }
});

fn start() -> PathBuf {
    // As every Rust program does before `main`; here `main` is libFuzzer's.
    // SAFETY: no handler is installed, only a default replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // SAFETY: it is a function without arguments that does not unwind.
    unsafe { libc::atexit(clean_up) };
    let options = Options {
        home: HOME.clone(),
        tmpfs: HOME.join("shm"),
        search_path: std::env::var_os("PATH").unwrap_or_else(OsString::new),
        port: 0,
    };
    let (ready, daemon) = mpsc::channel();
    thread::spawn(move || {
        serve(options, |info| ready.send(info.api.clone()).unwrap()).unwrap();
        // It was told to stop, by a signal that is meant for all of the process.
        std::process::exit(0);
    });
    let socket = daemon.recv().unwrap();
    let machine = r#"{"name":"m","boot":{"from":"demo"},"disk_bytes":1048576}"#;
    let length = machine.len();
    let mut stream = UnixStream::connect(&socket).unwrap();
    write!(
        stream,
        "POST /api/v1/machines HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{machine}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    socket
}

extern "C" fn clean_up() {
    let _ = fs::remove_dir_all(&*HOME);
}

/// One who has come in.
fn come(what: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&*DAEMON).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /api/v1/machines/m/{what} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}
