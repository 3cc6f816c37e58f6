//! A WebSocket by hand, so that anything can be said over it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long anything may take before it counts as hanging; never waited for otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// What may be opened over a machine's WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Screen,
    Console,
}

/// Where the daemon is, and what lets in.
pub(super) struct Door {
    pub(super) address: String,
    pub(super) token: String,
}

/// One who has come in.
pub(super) struct Viewer(TcpStream);

impl Viewer {
    /// Comes to the machine `m`.
    pub(super) fn come(door: &Door, what: What) -> Viewer {
        let Door { address, token } = door;
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let what = if what == What::Screen { "screen" } else { "console" };
        write!(
            stream,
            "GET /api/v1/machines/m/{what} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Viewer(stream)
    }

    /// Says that. The daemon may have heard enough before.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        if let Err(error) = self.0.write_all(bytes) {
            assert!(is_gone(error.kind()), "nobody takes what is said: {error}");
        }
    }

    /// What the daemon says next, its first byte and its content; nothing if it has hung up.
    pub(super) fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, length] = self.read()?;
        let length = match length {
            126 => u16::from_be_bytes(self.read()?).into(),
            127 => u64::from_be_bytes(self.read()?),
            length => length.into(),
        };
        let mut content = vec![0; length.try_into().unwrap()];
        self.read_into(&mut content)?;
        Some((first, content))
    }

    /// Whether the daemon goes on with it; else it has hung up.
    pub(super) fn is_served(&mut self) -> bool {
        self.say(&frame(0x89, b"are you there?"));
        let answer =
            std::iter::from_fn(|| self.hear()).find(|said| *said == (0x8a, b"are you there?".to_vec()));
        answer.is_some()
    }

    /// Says no more, and returns when the daemon has hung up.
    pub(super) fn end(mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
        while self.hear().is_some() {}
    }

    fn read<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        self.read_into(&mut bytes)?;
        Some(bytes)
    }

    fn read_into(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.0.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if is_gone(error.kind()) => None,
            Err(error) => panic!("the daemon neither answers nor hangs up: {error}"),
        }
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A frame as viewers send them. Its first byte is FIN, three bits that mean nothing, and what it is.
pub(super) fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let masked = content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    head(first, content.len() as u64).into_iter().chain(mask).chain(masked).collect()
}

/// What is before its mask.
pub(super) fn head(first: u8, length: u64) -> Vec<u8> {
    let length = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => vec![0x80 | length],
        (_, Ok(length)) => [&[0x80 | 126][..], &length.to_be_bytes()].concat(),
        _ => [&[0x80 | 127][..], &length.to_be_bytes()].concat(),
    };
    [vec![first], length].concat()
}
