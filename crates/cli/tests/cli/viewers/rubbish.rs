//! What is said to the daemon that no viewer of ours says.

use fastrand::Rng;

use super::line::What::{self, Console, Screen};
use super::line::{frame, head};

/// So much may be said to the screen at once, and to the console: `server/screen.rs`, `server/console.rs`.
pub(super) const LONGEST: [(What, usize); 2] = [(Screen, (2 << 20) + (16 << 10)), (Console, 64 << 10)];

/// What is said at once, to whom, and what it is called.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) to: What,
    pub(super) said: Vec<u8>,
    /// Whether the daemon goes on with who says it.
    pub(super) is_fine: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |to, is_fine, name: &str, said| {
        let name = format!("{}-{name}", if to == Screen { "screen" } else { "console" });
        cases.push(Case { name, to, said, is_fine });
    };
    for (to, longest) in LONGEST {
        for (name, said) in no_frames(to, longest) {
            add(to, false, &name, said);
        }
        for (name, said) in unusual_frames(to, longest) {
            add(to, true, name, said);
        }
    }
    for (name, text) in no_messages() {
        add(Screen, false, name, frame(0x81, text.as_bytes()));
    }
    for (name, text) in unusual_messages() {
        add(Screen, true, name, frame(0x81, text.as_bytes()));
    }
    add(Screen, false, "bytes", frame(0x82, b"{\"type\":\"take\"}"));
    add(Screen, false, "no-utf-8", frame(0x81, b"{\"type\":\"take\xff\"}"));
    add(Console, false, "text", frame(0x81, b"ls"));
    add(Console, false, "no-utf-8", frame(0x81, &[0xff]));
    cases
}

/// Something that the daemon hears, in so many bytes.
fn fine(to: What, length: usize) -> (u8, Vec<u8>) {
    let text = "{\"type\":\"release\"}";
    match to {
        Screen => (0x81, (text.to_owned() + &" ".repeat(length - text.len())).into_bytes()),
        Console => (0x82, vec![b'\n'; length]),
    }
}

/// What is against the protocol, or too long.
fn no_frames(to: What, longest: usize) -> Vec<(String, Vec<u8>)> {
    let (first, content) = fine(to, 20);
    let kind = first & 0xf;
    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    for reserved in (3..8).chain(11..16) {
        said.push((format!("opcode-{reserved}"), frame(0x80 | reserved, &content)));
    }
    for bit in 4..7 {
        said.push((format!("bit-{bit}"), frame(first | 1 << bit, &content)));
    }
    for length in [longest as u64 + 1, i64::MAX as u64, 1 << 63, u64::MAX] {
        said.push((format!("length-{length:x}"), head(first, length)));
        let piece = head(0x00, length);
        said.push((format!("piece-of-{length:x}"), [frame(kind, &content), piece].concat()));
    }
    let unmasked = [&[first, content.len() as u8][..], &content].concat();
    let pieces = std::iter::repeat_n(frame(0x00, &vec![b' '; 8 << 10]), longest / (8 << 10) + 1);
    let pieces = [frame(kind, &content)].into_iter().chain(pieces).collect::<Vec<_>>().concat();
    for (name, bytes) in [
        ("unmasked", unmasked),
        ("too-long", frame(first, &vec![b' '; longest + 1])),
        ("too-long-in-pieces", pieces),
        ("ping-in-pieces", frame(0x09, b"are")),
        ("long-ping", frame(0x89, &[b' '; 126])),
        ("goes-on-with-nothing", frame(0x80, &content)),
        ("begins-twice", [frame(kind, &content), frame(first, &content)].concat()),
        ("closes", frame(0x88, &1000_u16.to_be_bytes())),
        ("closes-with-half-a-reason", frame(0x88, &[3])),
        ("closes-with-no-utf-8", frame(0x88, &[3, 232, 0xff])),
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ] {
        said.push((name.to_owned(), bytes));
    }
    said
}

/// What is strange, and yet as the protocol has it.
fn unusual_frames(to: What, longest: usize) -> Vec<(&'static str, Vec<u8>)> {
    let (first, content) = fine(to, 20);
    let (begin, end) = (frame(first & 0xf, &[]), frame(0x80, &[]));
    let bytes = content.iter().map(|byte| [frame(0x00, &[*byte]), frame(0x8a, b"?")].concat());
    let small = frame(first, &content);
    vec![
        ("byte-by-byte", [begin].into_iter().chain(bytes).chain([end]).collect::<Vec<_>>().concat()),
        ("thousands", small.repeat(5000)),
        ("thousands-of-pings", frame(0x89, &[b'?'; 125]).repeat(5000)),
        ("no-less-is-too-long", frame(first, &fine(to, longest).1)),
    ]
}

fn no_messages() -> Vec<(&'static str, String)> {
    let deep = 200_000;
    vec![
        ("nothing", String::new()),
        ("no-json", "take".to_owned()),
        ("half-a-message", "{\"type\":\"take\"".to_owned()),
        ("two-messages", "{\"type\":\"take\"}{\"type\":\"take\"}".to_owned()),
        ("no-object", "\"take\"".to_owned()),
        ("no-type", "{\"number\":1}".to_owned()),
        ("type-twice", "{\"type\":\"take\",\"type\":\"release\"}".to_owned()),
        ("unknown-type", "{\"type\":\"give\"}".to_owned()),
        ("unknown-field", "{\"type\":\"shown\",\"number\":1,\"more\":2}".to_owned()),
        ("number-below", "{\"type\":\"shown\",\"number\":-1}".to_owned()),
        ("number-beyond", "{\"type\":\"shown\",\"number\":4294967296}".to_owned()),
        ("number-of-many-digits", format!("{{\"type\":\"shown\",\"number\":1{}}}", "0".repeat(9000))),
        ("number-with-a-fraction", "{\"type\":\"shown\",\"number\":1.5}".to_owned()),
        ("number-without-end", "{\"type\":\"wheel\",\"up\":1e999}".to_owned()),
        ("wheel-too-far", "{\"type\":\"wheel\",\"up\":128}".to_owned()),
        ("buttons-that-are-none", "{\"type\":\"pointer\",\"x\":0,\"y\":0,\"buttons\":256}".to_owned()),
        ("half-a-character", "{\"type\":\"key\",\"code\":\"\\ud800\",\"down\":true}".to_owned()),
        ("deep", "[".repeat(deep)),
        (
            "deep-in-a-message",
            format!("{{\"type\":\"take\",\"more\":{}{}}}", "[".repeat(deep), "]".repeat(deep)),
        ),
        ("deep-before-the-type", format!("{{\"more\":{}", "{\"a\":".repeat(deep))),
    ]
}

fn unusual_messages() -> Vec<(&'static str, String)> {
    let text =
        |kind: &str, length: usize| format!("{{\"type\":\"{kind}\",\"text\":\"{}\"", "a".repeat(length));
    vec![
        (
            "farthest",
            "{\"type\":\"moved\",\"right\":-2147483648,\"down\":2147483647,\"buttons\":255}".to_owned(),
        ),
        (
            "farthest-place",
            "{\"type\":\"pointer\",\"x\":4294967295,\"y\":4294967295,\"buttons\":31}".to_owned(),
        ),
        ("all-the-wheel", "{\"type\":\"wheel\",\"up\":-128}".to_owned()),
        ("nothing-shown", "{\"type\":\"shown\",\"number\":4294967295}".to_owned()),
        ("no-key", format!("{{\"type\":\"key\",\"code\":\"{}\",\"down\":true}}", "A".repeat(100_000))),
        ("long-text", text("type", (16 << 10) + 1) + ",\"layout\":\"us\"}"),
        ("no-layout", text("type", 3) + ",\"layout\":\"../../us\"}"),
        ("clipboard", text("clipboard", 1 << 20) + "}"),
        ("long-clipboard", text("clipboard", (1 << 20) + 1) + "}"),
        ("zeros", "{\"type\":\"clipboard\",\"text\":\"\\u0000\\u0000\"}".to_owned()),
    ]
}

/// Something by chance: bytes, frames of anything, and frames of what could be messages.
pub(super) fn noise(random: &mut Rng) -> Vec<u8> {
    const PIECES: [&str; 12] = [
        "{",
        "}",
        "\"type\":",
        "\"take\"",
        "\"shown\"",
        ",",
        "\"number\":",
        "1",
        "[",
        "\"key\"",
        "-1e9",
        "\\u00",
    ];
    const FIRST: [u8; 8] = [0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0x88];
    let mut said = Vec::new();
    for _ in 0..random.usize(1..8) {
        let mut bytes = vec![0; random.usize(0..200)];
        random.fill(&mut bytes);
        let text: String = (0..random.usize(0..20)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        said.extend(match random.u32(0..5) {
            0 => bytes,
            1 => frame(random.u8(..), &bytes),
            2 => frame(FIRST[random.usize(..FIRST.len())], &bytes[..bytes.len().min(125)]),
            3 => frame(0x81, text.as_bytes()),
            _ => frame(0x81, b"{\"type\":\"take\"}"),
        });
    }
    said
}
