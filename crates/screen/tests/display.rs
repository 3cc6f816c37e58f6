//! A real QEMU's screen and keyboard: a machine whose firmware speaks, and then a boot sector that types what it is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use watari_qemu::{Button, Input, Monitor};
use watari_screen::{Display, Grid, Screen};

/// Reads a key and shows it, for ever: `again: xor ax, ax; int 16h; mov ah, 0eh; int 10h; jmp again`.
const TYPES: [u8; 10] = [0x31, 0xc0, 0xcd, 0x16, 0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf6];
const PATIENCE: Duration = Duration::from_secs(60);

/// The places of the keys A and B.
const A: u32 = 0x1e;
const B: u32 = 0x30;

/// How a machine's display is spoken to.
#[derive(Clone, Copy, Debug)]
enum Over {
    Dbus,
    Vnc,
}

/// A process that is ended with the test.
struct Ended(Child);

struct Machine {
    qemu: Ended,
    monitor: Monitor,
    vnc: PathBuf,
}

impl Machine {
    /// One with a PS/2 keyboard and mouse, or with what there is of `devices` instead.
    fn start(folder: &Path, devices: &[&str]) -> Machine {
        let mut sector = [0; 512];
        sector[..TYPES.len()].copy_from_slice(&TYPES);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let (disk, socket, vnc) = (folder.join("disk"), folder.join("qmp"), folder.join("vnc"));
        let machine = if devices.is_empty() { "pc,accel=tcg" } else { "pc,accel=tcg,i8042=off" };
        std::fs::write(&disk, sector).unwrap();
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-machine", machine, "-m", "16", "-display", "dbus,p2p=yes"])
            .args(["-vnc", &format!("unix:{}", vnc.display())])
            .args(["-device", "VGA"])
            .args(devices.iter().flat_map(|device| ["-device", device]))
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .args(["-drive", &format!("file={},format=raw,if=ide", disk.display())])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut qemu = Ended(qemu);
        let monitor = Monitor::connect(&socket, Instant::now() + PATIENCE);
        let monitor = monitor.unwrap_or_else(|error| panic!("{error}: {:?}", qemu.0.try_wait()));
        Machine { qemu, monitor, vnc }
    }

    /// Presses a key, and says so to whoever looks.
    fn press(&self, qnum: u32, display: &Display) {
        for is_down in [true, false] {
            self.monitor.input(Input::Key { qnum, is_down }).unwrap();
        }
        display.expect_change();
    }

    /// Presses the key until the guest has shown it: how much is shown then. The firmware has read the disk when it speaks, or is
    /// about to, and what is typed too early is lost.
    async fn type_until_shown(&self, qnum: u32, display: &Display) -> usize {
        let before = display.screen().see(lit);
        for _ in 0..300 {
            self.press(qnum, display);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let shown = display.screen().see(lit);
            if shown > before {
                return shown;
            }
        }
        panic!("what is typed is not shown");
    }

    async fn display(&self, over: Over) -> Display {
        match over {
            Over::Dbus => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                self.monitor.serve_display(theirs.as_fd()).unwrap();
                Display::dbus(ours).await.unwrap()
            }
            Over::Vnc => Display::vnc(UnixStream::connect(&self.vnc).unwrap()).await.unwrap(),
        }
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

/// Whether the firmware has said something.
fn has_spoken(grid: &Grid) -> bool {
    lit(grid) > 500
}

/// How many pixels are not black.
fn lit(grid: &Grid) -> usize {
    let picture = grid.picture();
    let lit = |y| picture.row(0, y, picture.width()).iter().filter(|pixel| **pixel != 0).count();
    (0..picture.height()).map(lit).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_shows_is_seen_and_what_is_typed_is_shown() {
    is_seen_and_typed_to(Over::Dbus, Over::Vnc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_where_qemu_has_nothing_but_vnc() {
    is_seen_and_typed_to(Over::Vnc, Over::Dbus).await;
    is_seen_and_typed_to(Over::Vnc, Over::Vnc).await;
}

async fn is_seen_and_typed_to(first: Over, second: Over) {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::start(folder.path(), &[]);
    let display = machine.display(first).await;
    let screen = display.screen();
    until(screen, "what the firmware says", has_spoken).await;
    let mut typed = 0;
    for key in [A, B] {
        typed = machine.type_until_shown(key, &display).await;
    }
    // Somebody else sees the same, and goes on when the first has gone.
    let other = machine.display(second).await;
    let picture = |screen: &Screen| screen.see(|grid| grid.picture().clone());
    let wanted = picture(screen);
    until(other.screen(), "the same", |grid| *grid.picture() == wanted).await;
    drop(display);
    machine.press(A, &other);
    until(other.screen(), "what is typed", |grid| lit(grid) > typed).await;

    machine.qemu.0.kill().unwrap();
    machine.qemu.0.wait().unwrap();
    tokio::time::timeout(PATIENCE, other.closed()).await.unwrap();
    assert!(other.is_closed());
}

#[test]
fn a_mouse_is_moved_and_a_tablet_pointed_with() {
    let (point, shift) = (Input::point((10, 20), (640, 480)), Input::Shift { right: 10, down: -20 });
    for (devices, done, refused) in [(&[][..], shift, point), (&["virtio-tablet-pci"], point, shift)] {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::start(folder.path(), devices);
        machine.monitor.input(done).unwrap();
        assert!(machine.monitor.input(refused).is_err(), "{devices:?}");
        for (button, is_down) in
            [Button::Left, Button::WheelUp, Button::Extra].map(|b| [(b, true), (b, false)]).concat()
        {
            machine.monitor.input(Input::Button { button, is_down }).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_guest_has_not_taken_is_known_and_nothing_is_done_to_one_that_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::start(folder.path(), &[]);
    // As long as the firmware sets the keyboard up, what the controller answers it waits to be taken now and then.
    let display = machine.display(Over::Dbus).await;
    until(display.screen(), "what the firmware says", has_spoken).await;
    machine.type_until_shown(B, &display).await;
    let monitor = &machine.monitor;
    let is_taken = || {
        let deadline = Instant::now() + PATIENCE;
        while monitor.has_untaken_input().unwrap() {
            assert!(Instant::now() < deadline, "the guest takes nothing");
        }
    };
    let key = |is_down| monitor.input(Input::Key { qnum: A, is_down });
    is_taken();
    key(true).unwrap();
    is_taken();
    monitor.stop().unwrap();
    let refused = key(false).unwrap_err();
    assert!(matches!(refused, watari_qemu::Error::Refused { .. }), "{refused}");
    assert!(!monitor.has_untaken_input().unwrap());
    monitor.cont().unwrap();
    key(false).unwrap();
    is_taken();
}

#[tokio::test]
async fn what_is_no_display_is_told_from_one() {
    for over in [Over::Dbus, Over::Vnc] {
        let open = async |socket| match over {
            Over::Dbus => Display::dbus(socket).await,
            Over::Vnc => Display::vnc(socket).await,
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(open(ours).await.is_err());

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let opened = tokio::time::timeout(PATIENCE, open(ours)).await;
        assert!(opened.unwrap().is_err());
    }
}
