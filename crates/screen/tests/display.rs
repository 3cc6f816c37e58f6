//! A real QEMU's screen and keyboard: a machine whose firmware speaks, and then a boot sector that types what it is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use watari_qemu::Monitor;
use watari_screen::{Button, Display, Grid, Screen};

/// Reads a key and shows it, for ever: `again: xor ax, ax; int 16h; mov ah, 0eh; int 10h; jmp again`.
const TYPES: [u8; 10] = [0x31, 0xc0, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf6];
const PATIENCE: Duration = Duration::from_secs(60);

/// The places of the keys A and B.
const A: u32 = 0x1e;
const B: u32 = 0x30;

/// A process that is ended with the test.
struct Ended(Child);

struct Machine {
    qemu: Ended,
    monitor: Monitor,
}

impl Machine {
    fn start(folder: &Path) -> Machine {
        let mut sector = [0; 512];
        sector[..TYPES.len()].copy_from_slice(&TYPES);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let (disk, socket) = (folder.join("disk"), folder.join("qmp"));
        std::fs::write(&disk, sector).unwrap();
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-machine", "pc,accel=tcg", "-m", "16", "-display", "dbus,p2p=yes"])
            .args(["-device", "VGA"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .args(["-drive", &format!("file={},format=raw,if=ide", disk.display())])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut qemu = Ended(qemu);
        let monitor = Monitor::connect(&socket, Instant::now() + PATIENCE);
        let monitor = monitor.unwrap_or_else(|error| panic!("{error}: {:?}", qemu.0.try_wait()));
        Machine { qemu, monitor }
    }

    async fn display(&self) -> Display {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.monitor.serve_display(theirs.as_fd()).unwrap();
        Display::open(ours).await.unwrap()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the screen is as wanted.
async fn until(screen: &Screen, what: &str, is_so: impl Fn(&Grid) -> bool) {
    let mut changes = screen.changes();
    let wait = async {
        while !screen.see(&is_so) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} was not seen"));
}

/// How many pixels are not black.
fn lit(grid: &Grid) -> usize {
    let picture = grid.picture();
    let lit = |y| picture.row(0, y, picture.width()).iter().filter(|pixel| **pixel != 0).count();
    (0..picture.height()).map(lit).sum()
}

async fn press(display: &Display, key: u32) {
    display.key(key, true).await.unwrap();
    display.key(key, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_shows_is_seen_and_what_is_typed_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::start(folder.path());
    let display = machine.display().await;
    let screen = display.screen();
    until(screen, "what the firmware says", |grid| lit(grid) > 500).await;
    // It has read the disk by then, or is about to: what is typed too early is lost.
    let mut typed = screen.see(lit);
    for key in [A, B] {
        let before = typed;
        let mut tries = 0;
        while typed <= before {
            press(&display, key).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            typed = screen.see(lit);
            tries += 1;
            assert!(tries < 300, "what is typed is not shown");
        }
    }
    // The mouse of this machine only knows how far it was moved.
    display.shift(10, -20).await.unwrap();
    assert!(display.point(10, 20).await.is_err());
    display.button(Button::Left, true).await.unwrap();
    display.button(Button::Left, false).await.unwrap();

    // Somebody else sees the same, and goes on when the first has gone.
    let other = machine.display().await;
    let picture = |screen: &Screen| screen.see(|grid| grid.picture().clone());
    let wanted = picture(screen);
    until(other.screen(), "the same", |grid| *grid.picture() == wanted).await;
    drop(display);
    press(&other, A).await;
    until(other.screen(), "what is typed", |grid| lit(grid) > typed).await;

    machine.qemu.0.kill().unwrap();
    machine.qemu.0.wait().unwrap();
    assert!(other.key(A, true).await.is_err(), "there is nobody to type to");
}

#[tokio::test]
async fn what_is_no_display_is_told_from_one() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(Display::open(ours).await.is_err());

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut theirs, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let opened = tokio::time::timeout(PATIENCE, Display::open(ours)).await;
    assert!(opened.unwrap().is_err());
}
