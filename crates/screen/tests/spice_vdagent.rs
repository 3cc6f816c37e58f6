//! Texts to and from a desktop by its own agent: Debian's spice-vdagentd and spice-vdagent, with an X server that shows nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use watari_screen::clipboard::{Clipboard, Copied, LONGEST};

const PATIENCE: Duration = Duration::from_secs(60);
const BREATH: Duration = Duration::from_millis(100);

/// A process that is ended with the test.
struct Ended(Child);

impl Ended {
    fn start(command: &mut Command) -> Ended {
        Ended(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is between a port's socket and an agent, as QEMU is: neither end learns that the other one has gone.
async fn port(clients: UnixListener, agents: UnixListener) {
    let accept = async |from: &UnixListener| from.accept().await.unwrap().0;
    let mut client = accept(&clients).await;
    let mut agent = accept(&agents).await;
    loop {
        let ((mut from_client, mut to_client), (mut from_agent, mut to_agent)) =
            (client.split(), agent.split());
        let has_client_gone = tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_agent) => true,
            _ = tokio::io::copy(&mut from_agent, &mut to_client) => false,
        };
        match has_client_gone {
            true => client = accept(&clients).await,
            false => agent = accept(&agents).await,
        }
    }
}

/// A desktop, without its agent.
struct Desktop {
    folder: PathBuf,
    display: String,
    server: Ended,
}

impl Drop for Desktop {
    /// Asked to, an X server takes away its socket, which is in a folder that all have.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.server.0), Signal::TERM);
        let _ = self.server.0.wait();
    }
}

impl Desktop {
    fn start(folder: &Path) -> Desktop {
        let server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "640x480x24"])
            .stdout(Stdio::piped())
            .spawn();
        let mut server = Ended(server.unwrap());
        let mut number = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut number).unwrap();
        Desktop { folder: folder.to_owned(), display: format!(":{}", number.trim()), server }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin")
            .env("DISPLAY", &self.display)
            .env("HOME", &self.folder)
            .env("XDG_RUNTIME_DIR", &self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Its agent: a process for the machine, and one for who sits in front of it.
    fn agent(&self) -> (Ended, Ended) {
        let (socket, uinput) = (self.folder.join("between"), self.folder.join("uinput"));
        let _ = std::fs::remove_file(&socket);
        std::fs::write(&uinput, "").unwrap();
        let port = self.folder.join("agents");
        let mut daemon = self.command("spice-vdagentd");
        daemon.args(["-x", "-X", "-f", "-u"]).arg(&uinput).arg("-s").arg(&port).arg("-S").arg(&socket);
        let daemon = Ended::start(&mut daemon);
        let began = std::time::Instant::now();
        while !socket.exists() {
            assert!(began.elapsed() < PATIENCE, "spice-vdagentd does not start");
            std::thread::sleep(BREATH);
        }
        let mut agent = self.command("spice-vdagent");
        agent.arg("-x").arg("-s").arg(&port).arg("-S").arg(&socket);
        (daemon, Ended::start(&mut agent))
    }

    /// Has a program copy this text, which goes on offering it.
    fn copy(&self, text: &str) -> Ended {
        let mut program = self.command("xclip");
        program.args(["-selection", "clipboard", "-quiet", "-i"]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut program = Ended::start(&mut program);
        program.0.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        program
    }

    /// Pastes, again and again, until it is this text.
    async fn until_pasted(&self, text: &str) {
        let paste = async || {
            let mut program = tokio::process::Command::from(self.command("xclip"));
            program.args(["-selection", "clipboard", "-o"]).kill_on_drop(true);
            program.output().await.unwrap().stdout
        };
        let all = async {
            while !timeout(Duration::from_secs(5), paste())
                .await
                .is_ok_and(|pasted| pasted == text.as_bytes())
            {
                sleep(BREATH).await;
            }
        };
        timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{} bytes were not pasted", text.len()));
    }
}

async fn until<T: PartialEq>(what: &str, watched: &mut watch::Receiver<T>, value: T) {
    let is_so = timeout(PATIENCE, watched.wait_for(|now| *now == value)).await;
    drop(is_so.unwrap_or_else(|_| panic!("{what}: not seen")).unwrap());
}

fn text(text: &str) -> Option<Copied> {
    Some(Copied::Text(text.into()))
}

/// A text of about this length, at most, with characters of several lengths, and lines.
fn long(bytes: usize) -> String {
    let mut text: String = (0..=bytes / 15).map(|line| format!("{line}: ä € 😀\n")).collect();
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desktop_pastes_what_is_set_and_tells_what_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("clients");
    let listen = |name: &str| UnixListener::bind(folder.path().join(name)).unwrap();
    let port = tokio::spawn(port(listen("clients"), listen("agents")));
    let desktop = Desktop::start(folder.path());

    // What is set before there is an agent is offered to the one that comes.
    let clipboard = Clipboard::open(socket.clone());
    let (mut has_agent, mut copied) = (clipboard.has_agent(), clipboard.copied());
    clipboard.set("before there was an agent").unwrap();
    assert!(!*has_agent.borrow());
    let agent = desktop.agent();
    until("an agent", &mut has_agent, true).await;
    desktop.until_pasted("before there was an agent").await;

    for size in [1, 2000, 2048, 5000, LONGEST] {
        let long = long(size);
        clipboard.set(&long).unwrap();
        desktop.until_pasted(&long).await;
    }
    clipboard.set("and\r\nthe last").unwrap();
    desktop.until_pasted("and\nthe last").await;
    assert_eq!(*copied.borrow(), None, "what was set is not news");

    let mut programs = Vec::new();
    for size in [1, 2000, 2048, 5000, LONGEST] {
        let long = long(size);
        programs.push(desktop.copy(&long));
        until("what was copied", &mut copied, text(&long)).await;
        desktop.until_pasted(&long).await;
    }
    programs.push(desktop.copy(&"x".repeat(LONGEST + 1)));
    until("that it is too long", &mut copied, Some(Copied::TooLong(LONGEST + 1))).await;
    programs.push(desktop.copy("short again"));
    until("what was copied", &mut copied, text("short again")).await;

    // Another agent, in the middle of everything: what was set is offered to it as well.
    clipboard.set("to the next one").unwrap();
    drop(agent);
    let agent = desktop.agent();
    desktop.until_pasted("to the next one").await;
    programs.push(desktop.copy("by the next one"));
    until("what was copied", &mut copied, text("by the next one")).await;

    // And somebody else who looks.
    drop(clipboard);
    let clipboard = Clipboard::open(socket);
    let (mut has_agent, mut copied) = (clipboard.has_agent(), clipboard.copied());
    until("the agent", &mut has_agent, true).await;
    programs.push(desktop.copy("by somebody else"));
    until("what was copied", &mut copied, text("by somebody else")).await;
    clipboard.set("for somebody else").unwrap();
    desktop.until_pasted("for somebody else").await;
    drop(agent);
    port.abort();
}

#[tokio::test]
async fn nothing_waits_for_an_agent_that_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let clipboard = Clipboard::open(socket.clone());
    clipboard.set("where there is no machine").unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let (_stream, _): (UnixStream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let long = long(LONGEST);
    for _ in 0..100 {
        clipboard.set(&long).unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!*clipboard.has_agent().borrow());
    assert!(clipboard.set(&format!("{long}long")).is_err());
}
