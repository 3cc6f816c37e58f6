//! Whether what the server said answers what the client said, byte by byte, after the protocol.
//!
//! Only the two streams are compared: which exports there are, and what they can do, the replies themselves say.

use std::collections::HashMap;

use super::CONTENT;
use super::messages::{Bytes, Command, FIXED, IHAVEOPT, NO_ZEROES, Request, options};

const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const MAX_OPTION: u32 = 16 << 10;
const MAX_PAYLOAD: u32 = 32 << 20;

const ACK: u32 = 1;
const TOO_BIG: u32 = 0x8000_0009;
const ERRORS: u32 = 1 << 31;

/// What a request may fail with here, where neither files nor sources do: not with EIO, ENOMEM.
const ERRNOS: [u32; 5] = [1, 22, 28, 75, 95];

/// What the handshake came to.
struct Chosen {
    structured: bool,
    size: u64,
    read_only: bool,
}

/// Panics unless `heard` is what a client that said all of `said` has to hear. Returns the requests that the
/// server had in whole.
pub(crate) fn check(said: &[u8], heard: &[u8]) -> Vec<Request> {
    let (mut said, mut heard) = (Bytes(said), Bytes(heard));
    assert_eq!(heard.take(18), Some(&b"NBDMAGICIHAVEOPT\0\x03"[..]), "the greeting");
    let Some(chosen) = handshake(&mut said, &mut heard) else {
        assert!(heard.0.is_empty(), "the server says something after the handshake failed: {:?}", heard.0);
        return Vec::new();
    };
    let requests = requests(&mut said);
    answers(&chosen, &requests, &mut heard);
    requests
}

/// Goes through the options and their replies; `None` if no export was chosen.
fn handshake(said: &mut Bytes<'_>, heard: &mut Bytes<'_>) -> Option<Chosen> {
    let flags = said.u32()?;
    if flags & !(FIXED | NO_ZEROES) != 0 || flags & FIXED == 0 {
        return None;
    }
    let mut chosen = Chosen { structured: false, size: 0, read_only: false };
    loop {
        (said.take(8)? == IHAVEOPT).then_some(())?;
        let (option, len) = (said.u32()?, said.u32()?);
        if len > MAX_OPTION {
            assert_eq!(option_reply(option, heard).0, TOO_BIG);
            return None;
        }
        said.take(len as usize)?;
        if option == options::EXPORT_NAME {
            return old_choice(chosen, flags, heard);
        }
        let done = option_replies(option, &mut chosen, heard);
        match option {
            options::GO if done => return Some(chosen),
            options::ABORT => return None,
            options::STRUCTURED_REPLY if done => chosen.structured = true,
            _ => {}
        }
    }
}

/// The reply to the option that knows no errors: none if there is no such export.
fn old_choice(chosen: Chosen, flags: u32, heard: &mut Bytes<'_>) -> Option<Chosen> {
    if heard.0.is_empty() {
        return None;
    }
    let (size, transmission) = (heard.u64().unwrap(), heard.u16().unwrap());
    if flags & NO_ZEROES == 0 {
        assert_eq!(heard.take(124), Some(&[0; 124][..]));
    }
    Some(Chosen { size, read_only: is_read_only(transmission), ..chosen })
}

fn is_read_only(transmission: u16) -> bool {
    assert_eq!(transmission & 1, 1, "there are flags");
    transmission & 2 != 0
}

/// Hears the replies to one option to the one that ends them: whether that is no error.
fn option_replies(option: u32, chosen: &mut Chosen, heard: &mut Bytes<'_>) -> bool {
    loop {
        let (kind, data) = option_reply(option, heard);
        if kind == ACK || kind & ERRORS != 0 {
            assert!(kind != ACK || data.is_empty(), "an acknowledgement carries nothing");
            return kind == ACK;
        }
        let mut data = Bytes(data);
        match (kind, option) {
            (2, options::LIST) => {
                let len = data.u32().unwrap() as usize;
                assert!(len <= data.0.len() && data.0.is_ascii(), "the name of an export");
            }
            (3, options::INFO | options::GO) => {
                if data.u16() == Some(0) {
                    chosen.size = data.u64().unwrap();
                    chosen.read_only = is_read_only(data.u16().unwrap());
                }
            }
            (4, options::LIST_META_CONTEXT | options::SET_META_CONTEXT) => {
                assert!(data.u32().is_some() && data.0 == b"base:allocation");
            }
            _ => panic!("option {option} is answered by {kind}"),
        }
    }
}

/// One reply to an option: its kind and its data.
fn option_reply<'a>(option: u32, heard: &mut Bytes<'a>) -> (u32, &'a [u8]) {
    assert_eq!(heard.u64(), Some(OPTION_REPLY_MAGIC), "option {option} has no answer");
    assert_eq!(heard.u32(), Some(option));
    let kind = heard.u32().unwrap();
    let len = heard.u32().unwrap();
    (kind, heard.take(len as usize).unwrap())
}

/// The requests up to the first that ends the conversation: one that says so, is none, or is not whole.
fn requests(said: &mut Bytes<'_>) -> Vec<Request> {
    let mut requests = Vec::new();
    while let Some(request) = Request::take(said) {
        let payload = if request.is(Command::Write) { request.len } else { 0 };
        let ends = request.is(Command::Disconnect) || payload > MAX_PAYLOAD;
        if ends || said.take(payload as usize).is_none() {
            break;
        }
        requests.push(request);
    }
    requests
}

/// Checks that every request has its one answer, in whatever order.
fn answers(chosen: &Chosen, requests: &[Request], heard: &mut Bytes<'_>) {
    let mut waiting: HashMap<u64, &Request> = HashMap::new();
    for request in requests {
        if waiting.insert(request.cookie, request).is_some() {
            // Whose answer it is, and so how long, nobody can say: the client's own fault.
            return;
        }
    }
    while !heard.0.is_empty() {
        let magic = heard.u32().unwrap();
        let mut asked = |cookie: Option<u64>| waiting.remove(&cookie.unwrap()).expect("nobody asked for it");
        match magic {
            SIMPLE_REPLY_MAGIC => {
                let errno = heard.u32().unwrap();
                let request = asked(heard.u64());
                simple_answer(chosen, request, errno, heard);
            }
            STRUCTURED_REPLY_MAGIC => {
                assert!(chosen.structured, "structured replies were not chosen");
                assert_eq!(heard.u16(), Some(1), "the only chunk is the last");
                let kind = heard.u16().unwrap();
                let request = asked(heard.u64());
                let len = heard.u32().unwrap();
                chunk(chosen, request, kind, heard.take(len as usize).unwrap());
            }
            _ => panic!("{magic:#x} begins no reply"),
        }
    }
    assert!(waiting.is_empty(), "no answer to {waiting:?}");
}

fn simple_answer(chosen: &Chosen, request: &Request, errno: u32, heard: &mut Bytes<'_>) {
    let structured_only = request.is(Command::Read) || request.is(Command::BlockStatus) || errno != 0;
    assert!(!(chosen.structured && structured_only), "{request:?} is owed a structured reply");
    if errno != 0 {
        return assert!(ERRNOS.contains(&errno), "{request:?} failed with {errno}");
    }
    may_be_done(chosen, request);
    if request.is(Command::Read) {
        data(chosen, request, heard.take(request.len as usize).unwrap());
    }
}

/// The only chunk of a structured reply.
fn chunk(chosen: &Chosen, request: &Request, kind: u16, body: &[u8]) {
    let mut body = Bytes(body);
    if kind == 0x8001 {
        let errno = body.u32().unwrap();
        assert!(ERRNOS.contains(&errno), "{request:?} failed with {errno}");
        assert_eq!(usize::from(body.u16().unwrap()), body.0.len());
        assert!(std::str::from_utf8(body.0).is_ok(), "the reason is no text");
        return;
    }
    may_be_done(chosen, request);
    match (request.command(), kind) {
        (Some(Command::Read), 0) => assert!(request.len == 0 && body.0.is_empty()),
        (Some(Command::Read), 1) => {
            assert_eq!(body.u64(), Some(request.offset));
            data(chosen, request, body.0);
        }
        (Some(Command::BlockStatus), 5) => {
            assert_eq!(body.u32(), Some(1), "the context that was chosen");
            extents(request, body);
        }
        _ => panic!("{request:?} is answered by a chunk of kind {kind}"),
    }
}

/// Panics if the server did what it has to refuse.
fn may_be_done(chosen: &Chosen, request: &Request) {
    assert!(request.command().is_some(), "{request:?} is unknown, and done");
    assert!(request.end().is_some_and(|end| end <= chosen.size), "{request:?} is beyond the end, and done");
    let changes = [Command::Write, Command::Trim, Command::WriteZeroes];
    assert!(!chosen.read_only || !changes.iter().any(|command| request.is(*command)), "it is read-only");
}

fn data(chosen: &Chosen, request: &Request, data: &[u8]) {
    assert_eq!(data.len(), request.len as usize);
    if chosen.read_only {
        assert_eq!(data, &CONTENT.0[request.offset as usize..][..data.len()], "{request:?} has other bytes");
    }
}

fn extents(request: &Request, mut body: Bytes<'_>) {
    let mut bytes = 0;
    let mut count = 0;
    while !body.0.is_empty() {
        let (len, flags) = (body.u32().unwrap(), body.u32().unwrap());
        assert!(len > 0 && matches!(flags, 0 | 3), "{len} bytes, {flags}");
        bytes += u64::from(len);
        count += 1;
    }
    let one = request.flags & 8 != 0;
    assert!(count > 0 && (!one || count == 1), "{count} extents for {request:?}");
    assert!(bytes <= u64::from(request.len), "{bytes} bytes for {request:?}");
}
