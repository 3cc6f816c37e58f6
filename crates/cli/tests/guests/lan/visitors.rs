//! Who talks to a guest on the network, and would notice if a connection were lost or something in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::host::{Key, LINES};
use super::{BRIDGE, GUEST, Lan};
use crate::lab;

/// Prints who says in RARP where it is, a line each.
const HEAR: &str = "
import socket, sys
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8035))
card.bind((sys.argv[1], 0))
while True:
    print(card.recv(2048)[6:12].hex(':'), flush=True)
";

/// Has the guest run something.
fn ssh(lan: &Lan, key: &Key, what: &str) -> Command {
    let mut command = lan.command("ssh");
    command.args([
        "-F",
        "/dev/null",
        "-i",
        key.file().to_str().unwrap(),
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
    ]);
    command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "ConnectTimeout=20", &format!("root@{GUEST}"), what]);
    command
}

/// Numbered lines that come from the guest's web server without end; each must come once, and none be missing.
pub struct Download {
    curl: Child,
    lines: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Download {
    pub fn begin(lan: &Lan) -> Download {
        let mut curl = lan.command("curl");
        curl.args(["--silent", "--no-buffer", "--noproxy", "*", &format!("http://{GUEST}{LINES}")]);
        let mut curl = curl.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut from = BufReader::new(curl.stdout.take().unwrap());
        let (lines, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (Arc::clone(&lines), Arc::clone(&is_over));
        let reader = thread::spawn(move || {
            let mut line = String::new();
            loop {
                line.clear();
                let bytes = from.read_line(&mut line).unwrap();
                if over.load(Ordering::Relaxed) {
                    return;
                }
                assert!(bytes > 0, "the download ended");
                let number = count.load(Ordering::Relaxed) + 1;
                assert_eq!(line, format!("{number}\n"));
                count.store(number, Ordering::Relaxed);
            }
        });
        Download { curl, lines, is_over, reader: Some(reader) }
    }

    pub fn lines(&self) -> u64 {
        assert!(!self.reader.as_ref().unwrap().is_finished(), "the download is wrong");
        self.lines.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.end();
        if self.reader.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("the download was wrong");
        }
    }
}

/// Somebody who is logged in, says something and waits for the answer.
pub struct Session {
    ssh: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Session {
    /// What the guest prints when it runs that, if one can log in yet.
    pub fn once(lan: &Lan, key: &Key, what: &str) -> Option<String> {
        let done = ssh(lan, key, what).stdin(Stdio::null()).output().unwrap();
        done.status.success().then(|| lab::text(&done.stdout).trim().to_owned())
    }

    pub fn begin(lan: &Lan, key: &Key) -> Session {
        let mut ssh = ssh(lan, key, "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
        Session { ssh, to, from }
    }

    pub fn say(&mut self, words: &str) {
        self.to.write_all(words.as_bytes()).unwrap();
        let mut answer = vec![0; words.len()];
        self.from.read_exact(&mut answer).unwrap();
        assert_eq!(lab::text(&answer), words);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// The switch, which hears who tells the network where it is.
pub struct Switch {
    hears: Child,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Switch {
    pub fn listen(lan: &Lan) -> Switch {
        let mut hears = lan.command("python3");
        hears.args(["-c", HEAR, BRIDGE]);
        let mut hears = hears.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(hears.stdout.take().unwrap()).lines();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hearing = Arc::clone(&heard);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|who| hearing.lock().unwrap().push(who)));
        Switch { hears, heard }
    }

    /// How often this card was announced.
    pub fn has_heard(&self, card: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|who| *who == card).count()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.hears.kill();
        let _ = self.hears.wait();
    }
}
