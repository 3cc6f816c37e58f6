//! The inputs that the corpus began with: each option and each command, said well, and badly, and half.

use super::hostile::messages::options::{
    ABORT, EXPORT_NAME, GO, INFO, LIST, LIST_META_CONTEXT, SET_META_CONTEXT, STRUCTURED_REPLY,
};
use super::hostile::messages::{
    Command, FIXED, NO_ZEROES, OPTION_HEAD, REQUEST_HEAD, Request, about, contexts, option, string,
};
use super::hostile::{DISK, READ_ONLY};

/// A client's words as they are put together.
#[derive(Clone)]
struct Client {
    said: Vec<u8>,
    cookie: u64,
}

impl Client {
    fn with_flags(flags: u32) -> Client {
        Client { said: flags.to_be_bytes().to_vec(), cookie: 0 }
    }

    fn new() -> Client {
        Client::with_flags(FIXED | NO_ZEROES)
    }

    /// Has chosen an export, with all that can be negotiated or with nothing.
    fn of(export: &str, structured: bool) -> Client {
        let client = if structured { Client::new().structured(export) } else { Client::new() };
        client.option(GO, &about(export, &[]))
    }

    fn structured(self, export: &str) -> Client {
        self.option(STRUCTURED_REPLY, &[]).option(SET_META_CONTEXT, &contexts(export, &["base:allocation"]))
    }

    fn option(self, number: u32, data: &[u8]) -> Client {
        self.bytes(&option(number, data))
    }

    fn bytes(mut self, bytes: &[u8]) -> Client {
        self.said.extend(bytes);
        self
    }

    fn request(mut self, flags: u16, command: u16, offset: u64, len: u32) -> Client {
        self.cookie += 1;
        let head = Request { flags, command, cookie: 0xc00c_1e00 + self.cookie, offset, len }.encode();
        self.bytes(&head)
    }

    fn asks(self, command: Command, offset: u64, len: u32) -> Client {
        self.request(0, command as u16, offset, len)
    }

    fn writes(self, flags: u16, offset: u64, len: usize) -> Client {
        self.request(flags, Command::Write as u16, offset, len as u32).bytes(&vec![0xa5; len])
    }

    /// Without the last bytes.
    fn cut(mut self, bytes: usize) -> Client {
        self.said.truncate(self.said.len() - bytes);
        self
    }
}

/// Every seed with its name.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    let handshakes = handshakes().into_iter().map(|(name, client)| (name.to_owned(), client));
    let mut seeds: Vec<(String, Client)> = handshakes.collect();
    for (kind, structured) in [("simple", false), ("structured", true)] {
        let named = |(name, client)| (format!("{name}-{kind}"), client);
        seeds.extend(commands(structured).into_iter().map(named));
        seeds.extend(broken_commands(structured).into_iter().map(named));
    }
    seeds.into_iter().map(|(name, client)| (name, client.said)).collect()
}

fn handshakes() -> Vec<(&'static str, Client)> {
    let base = ["base:allocation"];
    let many = ["base:"; 1000];
    let long = "n".repeat(4097);
    let new = Client::new;
    vec![
        ("nothing", new().cut(4)),
        ("flags-half", new().cut(2)),
        ("flags-alone", new()),
        ("flags-unknown", Client::with_flags(u32::MAX).option(LIST, &[])),
        ("flags-not-fixed", Client::with_flags(NO_ZEROES).option(LIST, &[])),
        ("option-export-name", new().option(EXPORT_NAME, b"r").asks(Command::Read, 0, 16)),
        (
            "option-export-name-with-zeroes",
            Client::with_flags(FIXED).option(EXPORT_NAME, b"d").asks(Command::Read, 0, 16),
        ),
        ("option-export-name-unknown", new().option(EXPORT_NAME, b"x")),
        ("option-export-name-no-text", new().option(EXPORT_NAME, b"\xff\xfe")),
        ("option-export-name-too-long", new().option(EXPORT_NAME, long.as_bytes())),
        ("option-abort", new().option(ABORT, &[]).option(LIST, &[])),
        ("option-list", new().option(LIST, &[]).option(LIST, b"data")),
        ("option-starttls", new().option(5, &[]).option(LIST, &[])),
        ("option-extended-headers", new().option(11, &[]).option(GO, &about("d", &[]))),
        ("option-info", new().option(INFO, &about("d", &[0, 1, 2, 3]))),
        ("option-info-unknown", new().option(INFO, &about("x", &[]))),
        ("option-info-count-lies", new().option(INFO, b"\0\0\0\x01d\xff\xff\0\x01")),
        ("option-info-name-lies", new().option(INFO, b"\xff\xff\xff\xffd\0\0")),
        ("option-info-name-too-long", new().option(INFO, &about(&long, &[]))),
        ("option-info-data-too-much", new().option(INFO, b"\0\0\0\x01d\0\0more")),
        ("option-go", new().option(GO, &about("r", &[1, 3]))),
        ("option-go-name-no-text", new().option(GO, b"\0\0\0\x02\xff\xfe\0\0").option(LIST, &[])),
        ("option-go-twice", Client::of("d", false).option(GO, &about("d", &[]))),
        (
            "option-structured-reply",
            new()
                .option(STRUCTURED_REPLY, b"data")
                .option(STRUCTURED_REPLY, &[])
                .option(STRUCTURED_REPLY, &[]),
        ),
        (
            "option-list-meta-context",
            new().option(STRUCTURED_REPLY, &[]).option(LIST_META_CONTEXT, &contexts("d", &[])),
        ),
        (
            "option-list-meta-context-base",
            new().option(STRUCTURED_REPLY, &[]).option(LIST_META_CONTEXT, &contexts("d", &["base:"])),
        ),
        (
            "option-list-meta-context-many",
            new().option(STRUCTURED_REPLY, &[]).option(LIST_META_CONTEXT, &contexts("d", &many)),
        ),
        (
            "option-set-meta-context-no-text",
            new()
                .option(STRUCTURED_REPLY, &[])
                .option(SET_META_CONTEXT, b"\0\0\0\x01d\0\0\0\x01\0\0\0\x01\xff"),
        ),
        ("option-set-meta-context-too-early", new().option(SET_META_CONTEXT, &contexts("d", &base))),
        (
            "option-set-meta-context-unknown",
            new().option(STRUCTURED_REPLY, &[]).option(SET_META_CONTEXT, &contexts("d", &["qemu:x"])),
        ),
        (
            "option-set-meta-context-of-another",
            new().structured("r").option(GO, &about("d", &[])).asks(Command::BlockStatus, 0, 4096),
        ),
        (
            "option-set-meta-context-taken-back",
            new()
                .structured("d")
                .option(SET_META_CONTEXT, &contexts("d", &[]))
                .option(GO, &about("d", &[]))
                .asks(Command::BlockStatus, 0, 4096),
        ),
        (
            "option-set-meta-context-count-lies",
            new()
                .option(STRUCTURED_REPLY, &[])
                .option(SET_META_CONTEXT, &[&string("d")[..], &[0xff; 4]].concat()),
        ),
        ("option-head-half", new().option(LIST, &[]).cut(OPTION_HEAD / 2)),
        ("option-data-missing", new().option(GO, &[0; 16 << 10]).cut(16 << 10)),
        ("option-data-largest", new().option(GO, &[0; 16 << 10])),
        ("option-data-too-large", new().option(GO, &[0; 16 << 10]).bytes(b"IHAVEOPT\0\0\0\x07\0\0\x40\x01")),
        ("option-data-4-gib-announced", new().bytes(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff")),
        ("option-magic-wrong", new().bytes(b"IHAVENOT\0\0\0\x03\0\0\0\0")),
        ("request-before-a-choice", new().asks(Command::Read, 0, 512)),
    ]
}

/// Each command as clients say it.
fn commands(structured: bool) -> Vec<(&'static str, Client)> {
    let disk = || Client::of("d", structured);
    let frozen = || Client::of("r", structured);
    let (half, whole) = ((DISK / 2) as u32, DISK as u32);
    vec![
        (
            "read",
            disk().asks(Command::Read, 0, 512).asks(Command::Read, 4095, 2).asks(Command::Read, 8192, 12_288),
        ),
        (
            "read-whole-and-nothing",
            disk().asks(Command::Read, 0, whole).asks(Command::Read, DISK, 0).asks(Command::Read, 4097, 0),
        ),
        ("read-many", (0..20).fold(disk(), |client, at| client.asks(Command::Read, at * 999, 50_000))),
        ("read-dont-fragment", disk().request(4, Command::Read as u16, 0, 4096)),
        (
            "read-read-only",
            frozen().asks(Command::Read, 0, READ_ONLY as u32).asks(Command::Read, READ_ONLY - 1, 1).asks(
                Command::Read,
                5000,
                9000,
            ),
        ),
        (
            "write",
            disk().writes(0, 8192, 4096).writes(0, 511, 2).writes(0, 100_000, 9000).asks(
                Command::Read,
                8190,
                10,
            ),
        ),
        (
            "read-read-only-many-within-pages",
            (0..20).fold(frozen(), |client, at| client.asks(Command::Read, 4097 + at, 1_000_000)),
        ),
        ("write-fua", disk().writes(1, DISK - 512, 512)),
        ("write-nothing", disk().writes(0, 4096, 0).writes(1, DISK, 0)),
        ("write-read-only", frozen().writes(0, 0, 512).asks(Command::Read, 0, 512)),
        ("flush", disk().writes(0, 0, 512).asks(Command::Flush, 0, 0).asks(Command::Flush, 1, 0)),
        (
            "trim",
            disk().asks(Command::Trim, 4096, half).request(1, Command::Trim as u16, 1, 1).asks(
                Command::Trim,
                0,
                whole,
            ),
        ),
        ("trim-read-only", frozen().asks(Command::Trim, 0, 4096)),
        (
            "cache",
            disk().asks(Command::Cache, 0, whole).asks(Command::Cache, 4097, 0).asks(Command::Read, 0, 4096),
        ),
        ("cache-read-only", frozen().asks(Command::Cache, 0, READ_ONLY as u32)),
        (
            "write-zeroes",
            disk().asks(Command::WriteZeroes, 100, half).asks(Command::WriteZeroes, 4097, 5).asks(
                Command::WriteZeroes,
                1,
                0,
            ),
        ),
        ("write-zeroes-no-hole", disk().request(2, Command::WriteZeroes as u16, 4096, half)),
        (
            "write-zeroes-fast",
            disk().request(16, Command::WriteZeroes as u16, 0, 8192).request(
                19,
                Command::WriteZeroes as u16,
                0,
                whole,
            ),
        ),
        ("write-zeroes-read-only", frozen().asks(Command::WriteZeroes, 0, 4096)),
        (
            "block-status",
            disk()
                .writes(0, 0, 4096)
                .asks(Command::Trim, 4096, 4096)
                .asks(Command::BlockStatus, 0, whole)
                .asks(Command::BlockStatus, 4095, 2),
        ),
        ("block-status-one", disk().request(8, Command::BlockStatus as u16, 0, half)),
        ("block-status-nothing", disk().asks(Command::BlockStatus, 0, 0)),
        (
            "block-status-read-only",
            frozen().asks(Command::BlockStatus, 0, READ_ONLY as u32).asks(
                Command::BlockStatus,
                READ_ONLY - 1,
                1,
            ),
        ),
        (
            "disconnect",
            disk().asks(Command::Read, 0, 4096).asks(Command::Disconnect, 0, 0).asks(Command::Read, 0, 512),
        ),
    ]
}

/// Commands that are none, lie, or stop in the middle.
fn broken_commands(structured: bool) -> Vec<(&'static str, Client)> {
    let disk = || Client::of("d", structured);
    let alike = Request { flags: 0, command: Command::Read as u16, cookie: 7, offset: 0, len: 8 }.encode();
    let announce = |len: u32| disk().asks(Command::Write, 0, len);
    let everywhere = |offset: u64, len: u32| {
        let say = |client: Client, command: &Command| match command {
            Command::Write | Command::Disconnect => client,
            _ => client.asks(*command, offset, len),
        };
        Command::ALL.iter().fold(disk(), say)
    };
    vec![
        (
            "command-unknown",
            disk().request(0, 8, 0, 0).request(0, u16::MAX, 0, 512).asks(Command::Read, 0, 1),
        ),
        (
            "command-flags-unknown",
            (0..8).fold(disk(), |client, command| client.request(0x8020, command, 0, 0)),
        ),
        (
            "command-flags-all-known",
            (3..8).fold(disk(), |client, command| client.request(31, command, 0, 4096)),
        ),
        ("command-beyond-the-end", everywhere(DISK - 1, 2)),
        ("command-end-overflows", everywhere(u64::MAX, 2)),
        ("command-length-4-gib", everywhere(0, u32::MAX)),
        ("command-length-over-32-mib", everywhere(0, (32 << 20) + 1)),
        ("command-cookies-alike", (0..3).fold(disk(), |client, _| client.bytes(&alike))),
        (
            "command-magic-wrong",
            disk().asks(Command::Read, 0, 512).bytes(&[0x25; REQUEST_HEAD]).asks(Command::Read, 0, 512),
        ),
        (
            "command-head-half",
            disk().asks(Command::Read, 0, 512).asks(Command::Read, 0, 512).cut(REQUEST_HEAD / 2),
        ),
        (
            "write-beyond-the-end",
            disk().writes(0, DISK - 1, 2).writes(0, u64::MAX, 2).asks(Command::Read, 0, 1),
        ),
        ("write-32-mib-announced", announce(32 << 20).bytes(&[1; 10])),
        ("write-over-32-mib-announced", announce((32 << 20) + 1).bytes(&[1; 10])),
        ("write-1-mib-announced-nothing-sent", announce(1 << 20)),
        ("write-payload-ends-early", disk().writes(0, 0, 9000).cut(1)),
        ("write-payload-too-long", disk().writes(0, 0, 512).bytes(&[1; 512])),
    ]
}
