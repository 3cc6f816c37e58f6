//! A machine's screen in a real browser: seen, used, watched by several, and there again after whatever happens.

mod browser;
mod desktop;
mod firefox;
mod hands;
mod journey;
mod reader;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use headless_chrome::protocol::cdp::Input::MouseButton;

use self::browser::{Page, Pixels, Recording, View, address, start_guest};
use crate::lab::chance::Chance;
use crate::lab::{Lab, kill, text, wait};

const HELLO: [&str; 5] = ["KeyH", "KeyE", "KeyL", "KeyL", "KeyO"];
const NOTE: &str = "document.querySelector('.screen-note').textContent";

/// A node with a machine that shows what it is told, and a page that shows the machine.
fn watched() -> (Lab, Page) {
    watched_at(Lab::new())
}

fn watched_at(lab: Lab) -> (Lab, Page) {
    start_guest(&lab, "m");
    let page = Page::open(&address(&lab, "m", &[]));
    wait_for_picture(&page);
    (lab, page)
}

/// Until the guest's own picture is there, not the firmware's.
fn wait_for_picture(page: &impl View) {
    page.wait_for("the page", "document.querySelector('canvas') !== null");
    wait("a picture", || {
        let canvas = page.canvas();
        (canvas.width == 720 && canvas.bytes.iter().any(|byte| *byte != 0)).then_some(())
    });
    page.wait_for("no trouble", &format!("{NOTE} === ''"));
}

/// Waits until the machine has said so much of what it was told.
fn wait_until_told(lab: &Lab, what: &str) {
    wait(&format!("{what:?} in {:?}", lab.serial("m")), || lab.serial("m").ends_with(what).then_some(()));
}

/// Holds the guest, and waits until the canvas shows to the pixel what QEMU says that the machine does.
fn is_exact(lab: &Lab, page: &impl View) {
    lab.ok(&["pause", "m"]);
    page.wait_for("it is said", &format!("{NOTE}.includes('paused')"));
    // A text mode's cursor blinks, held or not.
    wait("the same in the browser", || (page.canvas() == Pixels::of_machine(lab, "m")).then_some(()));
    lab.ok(&["resume", "m"]);
    page.wait_for("it goes on", &format!("{NOTE} === ''"));
}

/// The upper right corner, where the guest counts.
fn counter(page: &impl View) -> Vec<u8> {
    let canvas = page.canvas();
    let width = 3 * canvas.width as usize;
    canvas.bytes.chunks_exact(width).take(16).flat_map(|row| row[width - 27..].to_vec()).collect()
}

/// The machine's picture changes, and its keyboard and pointer do what the person does.
fn is_seen_and_used(lab: &Lab, page: &impl View) {
    let before = counter(page);
    wait("the counter to go on", || (counter(page) != before).then_some(()));

    page.press(&HELLO);
    wait_until_told(lab, "hello");
    page.key("ShiftLeft", true);
    page.press(&["Digit1"]);
    page.key("ShiftLeft", false);
    wait_until_told(lab, "hello!");
    page.click(640.0, 450.0, MouseButton::Left);
    wait_until_told(lab, "hello!10");
    page.click(640.0, 450.0, MouseButton::Right);
    wait_until_told(lab, "hello!1020");
}

#[test]
fn a_person_sees_a_machine_and_uses_it() {
    let (lab, page) = watched();
    assert_eq!(page.text("location.search"), "?machine=m", "the token is not to be seen");
    is_seen_and_used(&lab, &page);
    is_exact(&lab, &page);

    page.press(&["Tab"]);
    page.wait_for("the screen's other size", "document.querySelector('canvas').height === 480");
    is_exact(&lab, &page);
    page.resize(500, 700, 1.0);
    page.wait_for("all of it in a smaller window", "document.querySelector('canvas').clientWidth <= 500");
    page.click(250.0, 400.0, MouseButton::Left);
    wait_until_told(&lab, "\t10");
    page.touch(250.0, 400.0, Duration::from_millis(50));
    wait_until_told(&lab, "\t1010");
    page.touch(250.0, 400.0, Duration::from_secs(1));
    wait_until_told(&lab, "\t101020");
    page.photograph("screen");
}

#[test]
fn a_qemu_without_dbus_is_watched_over_vnc() {
    let programs = tempfile::tempdir().unwrap();
    let (search, qemu) = (std::env::var("PATH").unwrap(), programs.path().join("qemu-system-x86_64"));
    let script = format!(
        "#!/bin/sh\nPATH='{search}'\n[ \"$*\" = '-display help' ] && {{ qemu-system-x86_64 -display help | grep -v dbus; exit; }}\n\
         exec qemu-system-x86_64 \"$@\"\n"
    );
    fs::write(&qemu, script).unwrap();
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{search}", programs.path().display());
    let (lab, page) = watched_at(Lab::with("", None, &[("PATH", path.into())]));
    let before = counter(&page);
    wait("the counter to go on", || (counter(&page) != before).then_some(()));
    page.press(&HELLO);
    wait_until_told(&lab, "hello");
    page.click(640.0, 450.0, MouseButton::Left);
    wait_until_told(&lab, "hello10");
    page.press(&["Tab"]);
    page.wait_for("the screen's other size", "document.querySelector('canvas').height === 480");
    is_exact(&lab, &page);
}

#[test]
fn text_is_typed() {
    let (lab, page) = watched();
    // As an input method, or a keyboard on a touch screen.
    page.insert("What? A ~{text}~");
    wait_until_told(&lab, "What? A ~{text}~");
    page.click_button("Text…");
    let set = "document.querySelector('dialog textarea').value = ";
    page.evaluate(&format!("{set} 'Pasted: \\u00e9'"));
    page.click_button("Type it");
    page.wait_for(
        "it is said what cannot be typed",
        "document.querySelector('dialog[open] [role=status]').textContent.includes('é')",
    );
    page.evaluate(&format!("{set} 'Pasted: 1 + 1 = 2'"));
    page.click_button("Type it");
    wait_until_told(&lab, "~Pasted: 1 + 1 = 2");
    page.press(&["KeyA"]);
    wait_until_told(&lab, "2a");
}

#[test]
fn keys_are_let_go_of_by_who_leaves() {
    let (lab, page) = watched();
    page.key("ShiftLeft", true);
    page.press(&["KeyA"]);
    wait_until_told(&lab, "A");
    page.evaluate("document.activeElement.blur()");
    page.evaluate("document.querySelector('.screen-input').focus()");
    page.press(&["KeyA"]);
    wait_until_told(&lab, "Aa");
    page.key("ShiftLeft", true);
    page.press(&["KeyB"]);
    wait_until_told(&lab, "AaB");
    drop(page);
    let page = Page::open(&address(&lab, "m", &[]));
    wait_for_picture(&page);
    page.press(&["KeyB"]);
    wait_until_told(&lab, "AaBb");
}

#[test]
fn the_picture_comes_back_by_itself() {
    let (lab, page) = watched();
    kill(lab.ok(&["up"])["pid"].as_u64().unwrap() as u32);
    page.wait_for("it is said", &format!("{NOTE}.includes('does not answer')"));
    lab.ok(&["up"]);
    page.wait_for("the daemon's next life", &format!("{NOTE} === ''"));
    page.press(&["KeyA"]);
    wait_until_told(&lab, "a");
    is_exact(&lab, &page);

    lab.ok(&["checkpoint", "m"]);
    page.press(&["KeyB"]);
    wait_until_told(&lab, "ab");
    lab.ok(&["restore", "m", "--discard"]);
    wait("the restored machine", || {
        page.press(&["KeyC"]);
        lab.serial("m").ends_with('c').then_some(())
    });
    is_exact(&lab, &page);

    kill(lab.pid("m", "qemu_pid"));
    page.wait_for("it is said", &format!("{NOTE}.includes('m is crashed')"));
    lab.ok(&["restore", "m", "--discard"]);
    page.wait_for("its next life", &format!("{NOTE} === ''"));
    is_exact(&lab, &page);
}

#[test]
fn one_is_in_control_and_who_only_watches_never_is() {
    let (lab, page) = watched();
    let watcher = Page::open(&address(&lab, "m", &["--view-only"]));
    wait_for_picture(&watcher);
    watcher.press(&HELLO);
    watcher.click(640.0, 450.0, MouseButton::Left);
    // Neither what the page keeps from being sent, nor what is sent in spite of it.
    watcher.evaluate(
        "new Promise(done => { const socket = new WebSocket('/api/v1/machines/m/screen'); socket.onopen = () => { \
         for (const what of [{ type: 'take' }, { type: 'key', code: 'KeyZ', down: true }, { type: 'key', code: 'KeyZ', down: false }]) \
         socket.send(JSON.stringify(what)); setTimeout(done, 1000); }; })",
    );
    for path in ["machines", "machines/m/thumbnail", "machines/m/console", "node"] {
        let status = watcher.evaluate(&format!("fetch('/api/v1/{path}').then(answer => answer.status)"));
        assert_eq!(status, 403, "{path}");
    }
    let other = Page::open(&address(&lab, "m", &[]));
    wait_for_picture(&other);
    other.press(&HELLO);
    page.press(&["KeyA"]);
    wait_until_told(&lab, "a");
    assert_eq!(lab.serial("m"), "a", "who is not in control types nothing");
    other.click_button("Take control");
    other.wait_for("control", "!document.querySelector('select').disabled");
    wait("the other's keys", || {
        other.press(&["KeyB"]);
        lab.serial("m").contains('b').then_some(())
    });
    is_exact(&lab, &watcher);
}

#[test]
fn who_has_no_token_sees_nothing() {
    let (lab, page) = watched();
    let url = address(&lab, "m", &[]);
    let (origin, token) = (url.split_once("/screen/").unwrap().0, url.split_once("token=").unwrap().1);
    let stranger = Page::open(&url.replace(token, &"0".repeat(64)));
    for path in ["/", "/screen/screen.js", "/api/v1/machines/m/screen", "/api/v1/machines/m/thumbnail"] {
        assert_eq!(
            stranger.evaluate(&format!("fetch('{path}').then(answer => answer.status)")),
            401,
            "{path}"
        );
    }
    assert_eq!(stranger.evaluate("document.querySelector('canvas') === null"), true);
    assert_eq!(stranger.evaluate(&outcome("/api/v1/machines/m/screen")), "closed");
    assert_eq!(page.evaluate(&outcome("/api/v1/machines/m/screen")), "open");
    assert_eq!(page.text("document.cookie"), "", "no script reads the token");

    // Another site's page: the browser says where it comes from.
    let address = origin.strip_prefix("http://").unwrap();
    for (from, status) in [(origin, "101"), ("http://evil.example", "403"), ("null", "403")] {
        assert_eq!(upgrade(address, token, from), status, "{from}");
    }
}

/// The status of the answer to a page of `origin` that opens a connection.
fn upgrade(address: &str, token: &str, origin: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /api/v1/machines/m/screen HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    text(&head[9..])
}

/// What becomes of a connection: `open`, or `closed`.
fn outcome(url: &str) -> String {
    format!(
        "new Promise(done => {{ const socket = new WebSocket('{url}'); socket.onopen = () => done('open'); \
         socket.onclose = () => done('closed'); }})"
    )
}

#[test]
fn what_was_recorded_is_painted_to_the_bit() {
    let lab = Lab::new();
    is_painted_to_the_bit(&Page::open(lab.ok(&["up"])["web_url"].as_str().unwrap()));
}

/// What a page makes of recordings is what was shown.
fn is_painted_to_the_bit(page: &impl View) {
    let mut chance = Chance::new();
    for turn in 0..40 {
        let recording = Recording::new(&mut chance);
        assert!(page.paint(&recording.updates) == recording.end, "other pixels in recording {turn}");
    }
}

#[test]
fn the_pages_are_pictured() {
    let lab = Lab::new();
    start_guest(&lab, "m");
    for turn in ["first", "second", "third"] {
        lab.ok(&["checkpoint", "m", "-m", turn]);
    }
    let page = Page::open(lab.ok(&["up"])["web_url"].as_str().unwrap());
    page.wait_for(
        "the machine's small picture",
        "[...document.images].some(image => image.naturalWidth > 100)",
    );
    page.photograph("machines");
    page.evaluate(
        "[...document.querySelectorAll('a')].find(link => link.textContent.trim() === 'm').click()",
    );
    page.wait_for("its history", "document.body.textContent.includes('second')");
    page.photograph("machine");
}
