//! The server against clients that do not keep to the protocol, and against the bytes it prescribes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Memory, pattern, place};
use proptest::prelude::*;
use tempfile::TempDir;
use watari_disk::Disk;
use watari_disk::nbd::{Exports, ReadOnly, Server};

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

struct Client(UnixStream);

impl Client {
    /// Connects and answers the greeting.
    fn connect(socket: &Path) -> Client {
        let mut stream = UnixStream::connect(socket).unwrap();
        // A server that hangs fails the test instead of hanging it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        Client(stream)
    }

    /// Connects to an export with structured replies or without.
    fn open(socket: &Path, name: &str, structured: bool) -> Client {
        let mut client = Client::connect(socket);
        if structured {
            assert_eq!(client.option(8, &[]), [(1, vec![])]);
        }
        let data = [&(name.len() as u32).to_be_bytes(), name.as_bytes(), &[0, 0]].concat();
        let replies = client.option(7, &data);
        assert_eq!(replies.last().unwrap().0, 1, "{replies:?}");
        client
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn vec(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Sends an option; its replies up to the one that ends them.
    fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let head =
            [&b"IHAVEOPT"[..], &option.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat();
        self.0.write_all(&head).unwrap();
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.bytes(), 0x0003_e889_0455_65a9u64.to_be_bytes());
            assert_eq!(self.bytes(), option.to_be_bytes());
            let kind = u32::from_be_bytes(self.bytes());
            let len = u32::from_be_bytes(self.bytes());
            replies.push((kind, self.vec(len as usize)));
            if kind == 1 || kind >= 1 << 31 {
                return replies;
            }
        }
    }

    fn request(&mut self, flags: u16, command: u16, offset: u64, len: u32, payload: &[u8]) {
        self.0.write_all(&message(flags, command, offset, len, payload)).unwrap();
    }

    /// The errno of a simple reply.
    fn simple(&mut self) -> u32 {
        assert_eq!(self.bytes(), 0x6744_6698u32.to_be_bytes());
        let errno = u32::from_be_bytes(self.bytes());
        assert_eq!(self.bytes(), 0x0123_4567_89ab_cdefu64.to_be_bytes());
        errno
    }

    /// The kind and payload of a structured reply of one chunk.
    fn structured(&mut self) -> (u16, Vec<u8>) {
        assert_eq!(self.bytes(), 0x668e_33efu32.to_be_bytes());
        assert_eq!(self.bytes(), 1u16.to_be_bytes(), "the only chunk is the last");
        let kind = u16::from_be_bytes(self.bytes());
        assert_eq!(self.bytes(), 0x0123_4567_89ab_cdefu64.to_be_bytes());
        let len = u32::from_be_bytes(self.bytes());
        (kind, self.vec(len as usize))
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

fn message(flags: u16, command: u16, offset: u64, len: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(0x0123_4567_89ab_cdefu64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(payload);
    bytes
}

struct Served {
    folder: TempDir,
    disk: Disk,
    _server: Server,
}

impl Served {
    fn start() -> Served {
        let (folder, path) = place();
        let disk = Disk::create(&path, 64 << 20, None).unwrap();
        let mut exports = Exports::new();
        exports.insert("d".into(), Arc::new(disk.clone()));
        exports.insert("r".into(), Arc::new(ReadOnly::new(Arc::new(Memory(pattern(10))), 40_000)));
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let server = Server::start(listener, exports).unwrap();
        Served { folder, disk, _server: server }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("s")
    }

    fn still_serves(&self) {
        let mut client = Client::open(&self.socket(), "d", false);
        client.request(0, READ, 0, 512, &[]);
        assert_eq!(client.simple(), 0);
        client.vec(512);
    }
}

#[test]
fn each_bad_request_gets_its_errno_and_the_next_one_is_answered() {
    let served = Served::start();
    let (eperm, einval, enospc) = (1, 22, 28);
    let size = 64u64 << 20;
    let cases = [
        ("d", 0, READ, size, 1, einval),
        ("d", 0, READ, u64::MAX, 2, einval),
        ("d", 0, READ, 0, (32 << 20) + 1, einval),
        ("d", 4, READ, 0, 1, einval),
        ("d", 1 << 9, READ, 0, 1, einval),
        ("d", 0, WRITE, size - 1, 2, enospc),
        ("d", 0, WRITE_ZEROES, size, 1, enospc),
        ("d", 0, TRIM, size, 1, einval),
        ("d", 2, TRIM, 0, 1, einval),
        ("d", 0, FLUSH, 0, 1, einval),
        ("d", 0, BLOCK_STATUS, 0, 4096, einval),
        ("d", 0, 99, 0, 0, einval),
        ("r", 0, WRITE, 0, 4, eperm),
        ("r", 0, WRITE_ZEROES, 0, 4, eperm),
        ("r", 0, TRIM, 0, 4, eperm),
        ("r", 0, READ, 39_999, 2, einval),
    ];
    for (export, flags, command, offset, len, errno) in cases {
        let mut client = Client::open(&served.socket(), export, false);
        let payload = vec![1; if command == WRITE { len as usize } else { 0 }];
        client.request(flags, command, offset, len, &payload);
        assert_eq!(client.simple(), errno, "{command} {offset} {len}");
        client.request(0, READ, 39_990, 10, &[]);
        assert_eq!(client.simple(), 0);
        assert_eq!(client.vec(10).len(), 10);
    }
    assert!(served.disk.scan().is_empty(), "what was refused changed nothing");
}

#[test]
fn structured_replies_carry_data_status_and_errors() {
    let served = Served::start();
    let mut client = Client::connect(&served.socket());
    let context =
        |name: &str| [&[0, 0, 0, 1, b'd', 0, 0, 0, 1, 0, 0, 0, name.len() as u8], name.as_bytes()].concat();
    assert_eq!(
        client.option(10, &context("base:allocation"))[0].0,
        0x8000_0003,
        "not before structured replies"
    );
    client.option(8, &[]);
    assert_eq!(client.option(9, &[0, 0, 0, 1, b'd', 0, 0, 0, 0]).len(), 2, "all contexts are listed");
    assert_eq!(client.option(10, &context("qemu:dirty-bitmap:x")), [(1, vec![])]);
    let chosen = client.option(10, &context("base:allocation"));
    assert_eq!(chosen, [(4, [&[0, 0, 0, 1], &b"base:allocation"[..]].concat()), (1, vec![])]);
    client.option(7, &[0, 0, 0, 1, b'd', 0, 1, 0, 3]);

    client.request(1, WRITE, 8192, 4096, &[5; 4096]);
    assert_eq!(client.simple(), 0);
    client.request(4, READ, 8190, 4, &[]);
    assert_eq!(client.structured(), (1, [8190u64.to_be_bytes().to_vec(), vec![0, 0, 5, 5]].concat()));
    let status = |extents: &[(u32, u32)]| {
        let extents =
            extents.iter().flat_map(|(len, flags)| [len.to_be_bytes(), flags.to_be_bytes()].concat());
        (5, [0, 0, 0, 1].into_iter().chain(extents).collect())
    };
    client.request(0, BLOCK_STATUS, 4096, 16_384, &[]);
    assert_eq!(client.structured(), status(&[(4096, 3), (4096, 0), (8192, 3)]));
    client.request(8, BLOCK_STATUS, 4096, 16_384, &[]);
    assert_eq!(client.structured(), status(&[(4096, 3)]));
    client.request(0, READ, 0, 0, &[]);
    assert_eq!(client.structured(), (0, vec![]));
    client.request(0, READ, 0, u32::MAX, &[]);
    let (kind, error) = client.structured();
    assert_eq!((kind, &error[..4]), (0x8001, &22u32.to_be_bytes()[..]));
    client.request(0, READ, 0, 33 << 20, &[]);
    let (kind, error) = client.structured();
    assert_eq!((kind, &error[..4]), (0x8001, &75u32.to_be_bytes()[..]));
}

#[test]
fn the_old_way_to_choose_an_export_works_with_and_without_zeroes() {
    let served = Served::start();
    let mut client = Client::connect(&served.socket());
    client.0.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x01r").unwrap();
    assert_eq!(client.bytes(), 40_000u64.to_be_bytes());
    let flags = u16::from_be_bytes(client.bytes());
    assert_eq!(flags & 0b11, 0b11, "flags are there, and read-only");
    client.request(0, READ, 0, 1, &[]);
    assert_eq!(client.simple(), 0);

    let mut client = Client::connect(&served.socket());
    client.0.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x01x").unwrap();
    assert!(client.is_closed(), "no such export");
}

#[test]
fn options_that_make_no_sense_are_refused_and_the_handshake_goes_on() {
    let served = Served::start();
    let mut client = Client::connect(&served.socket());
    for (option, data, error) in [
        (5, &b""[..], 0x8000_0001u32),
        (11, b"", 0x8000_0001),
        (77, b"what", 0x8000_0001),
        (3, b"x", 0x8000_0003),
        (8, b"x", 0x8000_0003),
        (7, b"", 0x8000_0003),
        (7, b"\0\0\0\x05d\0\0", 0x8000_0003),
        (7, b"\0\0\0\x01d\xff\xff", 0x8000_0003),
        (7, b"\0\0\0\x01\xff\0\0", 0x8000_0003),
        (7, b"\0\0\0\x01x\0\0", 0x8000_0006),
        (7, b"\0\0\0\0\0\0", 0x8000_0006),
    ] {
        assert_eq!(client.option(option, data).last().unwrap().0, error, "{option} {data:?}");
    }
    assert_eq!(client.option(8, &[]), [(1, vec![])]);
    assert_eq!(client.option(10, b"\0\0\0\x01d\xff\xff\xff\xff")[0].0, 0x8000_0003);
    assert_eq!(client.option(2, &[]), [(1, vec![])]);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_announces_more_than_is_allowed_is_left() {
    let served = Served::start();
    let mut client = Client::connect(&served.socket());
    client.0.write_all(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff").unwrap();
    client.bytes::<20>();
    assert!(client.is_closed());
    let mut client = Client::open(&served.socket(), "d", false);
    client.request(0, WRITE, 0, (32 << 20) + 1, &[]);
    assert!(client.is_closed());
    served.still_serves();
}

#[test]
fn a_client_that_disappears_in_the_middle_harms_nothing() {
    let served = Served::start();
    for sent in [0, 5, 4096] {
        let mut client = Client::open(&served.socket(), "d", false);
        client.request(0, WRITE, 0, 8192, &vec![1; sent]);
    }
    let mut client = Client::open(&served.socket(), "d", false);
    for _ in 0..20 {
        client.request(0, READ, 0, 8 << 20, &[]);
    }
    drop(client);
    served.still_serves();
    assert!(served.disk.scan().is_empty(), "half a request changed something");
}

#[test]
fn requests_of_one_connection_overtake_each_other() {
    let served = Served::start();
    served.disk.write_at(0, &vec![1; 64 << 20]).unwrap();
    let sealed = served.disk.seal();
    // Fill the room for old content, so that the next write to a sealed page waits for the saver.
    served.disk.write_at(0, &vec![2; 64 << 20]).unwrap();
    served.disk.write_at(0, &[3; 4096]).unwrap();
    let second = served.disk.seal();
    let mut client = Client::open(&served.socket(), "d", false);
    // A server that has had quick requests only must not take this one for another.
    for _ in 0..100 {
        client.request(0, READ, 4096, 1, &[]);
        assert_eq!((client.simple(), client.bytes()), (0, [2]));
    }
    client.request(0, WRITE, 0, 4 << 20, &vec![4; 4 << 20]);
    client.request(0, READ, 8 << 20, 1, &[]);
    assert_eq!(client.simple(), 0, "the read is answered while the write waits");
    assert_eq!(client.bytes(), [2]);
    drop(sealed);
    assert_eq!(client.simple(), 0, "and the write once there is room");
    let mut page = [0; 4096];
    second.read(0, &mut page).unwrap();
    assert_eq!(page[0], 3);
}

#[test]
fn a_burst_is_answered_up_to_the_request_that_is_not_whole_yet() {
    let served = Served::start();
    let mut client = Client::open(&served.socket(), "d", false);
    for round in 0..20_u8 {
        let content = |number: u8| [round ^ number; 4096];
        let write = |number: u8| message(0, WRITE, u64::from(number) * 4096, 4096, &content(number));
        let burst: Vec<u8> = (0..50).flat_map(write).collect();
        let (whole, rest) = burst.split_at(burst.len() - 1000);
        client.0.write_all(whole).unwrap();
        (0..49).for_each(|_| assert_eq!(client.simple(), 0));
        client.0.write_all(rest).unwrap();
        assert_eq!(client.simple(), 0);
        for number in 0..50 {
            let mut page = [0; 4096];
            served.disk.read_at(u64::from(number) * 4096, &mut page).unwrap();
            assert_eq!(page, content(number));
        }
    }
}

#[test]
fn a_burst_of_small_requests_leaves_room_for_large_ones() {
    let served = Served::start();
    let mut client = Client::open(&served.socket(), "d", true);
    for _ in 0..20 {
        let lengths = [[64 << 10; 15].as_slice(), &[(2 << 20) - 4096, 512, 32 << 20, 4096]].concat();
        let burst: Vec<u8> = lengths.iter().flat_map(|len| message(0, READ, 0, *len, &[])).collect();
        client.0.write_all(&burst).unwrap();
        let mut replies: Vec<usize> = lengths.iter().map(|_| client.structured().1.len() - 8).collect();
        let mut expected: Vec<usize> = lengths.iter().map(|len| *len as usize).collect();
        replies.sort_unstable();
        expected.sort_unstable();
        assert_eq!(replies, expected);
    }
}

#[test]
fn a_server_ends_while_clients_are_connected() {
    let served = Served::start();
    let mut shaking = Client::connect(&served.socket());
    let mut idle = Client::open(&served.socket(), "d", true);
    let mut stuck = Client::open(&served.socket(), "d", true);
    for _ in 0..20 {
        // Never reads the replies, so the server cannot send them.
        stuck.request(0, READ, 0, 8 << 20, &[]);
    }
    let Served { folder: _folder, disk, _server: server } = served;
    drop(server);
    assert!(shaking.is_closed() && idle.is_closed());
    disk.write_at(0, &[1]).unwrap();
}

#[test]
fn a_client_too_many_is_turned_away_and_comes_in_when_another_left() {
    let served = Served::start();
    let mut clients: Vec<Client> = (0..32).map(|_| Client::open(&served.socket(), "d", false)).collect();
    let mut extra = Client(UnixStream::connect(served.socket()).unwrap());
    assert!(extra.is_closed());
    let mut leaving = clients.pop().unwrap();
    leaving.request(0, 2, 0, 0, &[]);
    assert!(leaving.is_closed());
    // The server closes the socket a moment before it counts the client as gone.
    let again = |_| UnixStream::connect(served.socket()).unwrap().read_exact(&mut [0]).is_ok();
    assert!((0..10_000).any(again));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_whatsoever_stop_the_server(
        handshake: bool,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        options in prop::collection::vec((0u32..12, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
    ) {
        let served = Served::start();
        let mut client = Client::connect(&served.socket());
        if handshake {
            client = Client::open(&served.socket(), "d", true);
        } else {
            for (option, data) in options {
                let head = [&b"IHAVEOPT"[..], &option.to_be_bytes(), &(data.len() as u32).to_be_bytes(), &data];
                // The server may have left already.
                let _ = client.0.write_all(&head.concat());
            }
        }
        let _ = client.0.write_all(&[&0x2560_9513u32.to_be_bytes(), &bytes[..]].concat());
        drop(client);
        served.still_serves();
    }
}
