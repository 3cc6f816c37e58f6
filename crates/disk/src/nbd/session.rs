//! Requests in, replies out, for one client and the export it chose.

use std::io;
use std::sync::Arc;

use crate::nbd::Export;
use crate::nbd::negotiation::ALLOCATION_ID;
use crate::nbd::wire::{
    Errno, HOLE_AND_ZERO, MAX_PAYLOAD, Request, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command,
    command_flag, transmission,
};
use crate::{Extent, Zeroes};

/// What was negotiated.
pub(crate) struct Session {
    export: Arc<dyn Export>,
    structured: bool,
    allocation: bool,
}

/// A reply: its header and, if it carries data, those; to be sent one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) head: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

enum Answer {
    Done,
    Data(Vec<u8>),
    Extents(Vec<Extent>),
}

struct Failure {
    errno: Errno,
    message: String,
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Failure {
        Failure { errno: Errno::of(&err), message: err.to_string() }
    }
}

fn fail<T>(errno: Errno, message: &str) -> Result<T, Failure> {
    Err(Failure { errno, message: message.to_owned() })
}

impl Session {
    pub(crate) fn new(export: Arc<dyn Export>, structured: bool, allocation: bool) -> Session {
        Session { export, structured, allocation }
    }

    pub(crate) fn transmission_flags(&self) -> u16 {
        use transmission::{
            CAN_MULTI_CONN, HAS_FLAGS, READ_ONLY, SEND_CACHE, SEND_DF, SEND_FAST_ZERO, SEND_FLUSH, SEND_FUA,
            SEND_TRIM, SEND_WRITE_ZEROES,
        };
        let access = if self.export.read_only() {
            READ_ONLY
        } else {
            SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
        };
        let df = if self.structured { SEND_DF } else { 0 };
        HAS_FLAGS | SEND_FLUSH | SEND_CACHE | CAN_MULTI_CONN | access | df
    }

    /// Bytes of memory that answering the request takes.
    pub(crate) fn memory(&self, request: &Request) -> usize {
        match request.command {
            command::READ | command::WRITE => request.len.min(MAX_PAYLOAD) as usize,
            _ => 0,
        }
    }

    /// Whether the request is one that needs nothing from elsewhere: neither a page that is not here nor the medium.
    pub(crate) fn is_at_hand(&self, request: &Request) -> bool {
        let (offset, len) = (request.offset, u64::from(request.len));
        match request.command {
            command::READ => self.export.is_at_hand(offset, len, false),
            command::WRITE if request.flags & command_flag::FUA == 0 => {
                self.export.is_at_hand(offset, len, true)
            }
            _ => false,
        }
    }

    /// Does what the request asks and says how that went. `payload` is a write's, empty for all others.
    pub(crate) fn answer(&self, request: &Request, payload: &[u8]) -> Reply {
        match self.perform(request, payload) {
            Ok(answer) => self.encode(request, answer),
            Err(failure) => self.encode_failure(request, &failure),
        }
    }

    fn perform(&self, request: &Request, payload: &[u8]) -> Result<Answer, Failure> {
        self.check(request)?;
        let (offset, len) = (request.offset, u64::from(request.len));
        let fua = request.flags & command_flag::FUA != 0;
        match request.command {
            command::READ => {
                let mut data = vec![0; request.len as usize];
                self.export.read(offset, &mut data)?;
                return Ok(Answer::Data(data));
            }
            command::BLOCK_STATUS => return Ok(Answer::Extents(self.extents(request)?)),
            command::WRITE => self.export.write(offset, payload, fua)?,
            command::FLUSH => self.export.flush()?,
            command::TRIM => self.export.trim(offset, len, fua)?,
            // Advice: more than a client can read at a time is not prepared.
            command::CACHE => self.export.cache(offset, len.min(u64::from(MAX_PAYLOAD)))?,
            command::WRITE_ZEROES => {
                let keep = request.flags & command_flag::NO_HOLE != 0;
                let how = if keep { Zeroes::Allocated } else { Zeroes::Hole };
                let only_if_fast = request.flags & command_flag::FAST_ZERO != 0;
                self.export.write_zeroes(offset, len, how, only_if_fast, fua)?;
            }
            _ => return fail(Errno::Inval, "unknown command"),
        }
        Ok(Answer::Done)
    }

    /// Refuses what no export is asked.
    fn check(&self, request: &Request) -> Result<(), Failure> {
        use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, REQ_ONE};
        let known = FUA
            | match request.command {
                command::READ if self.structured => DF,
                command::WRITE_ZEROES => NO_HOLE | FAST_ZERO,
                command::BLOCK_STATUS => REQ_ONE,
                _ => 0,
            };
        let changes = matches!(request.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        let end = request.offset.checked_add(u64::from(request.len));
        if request.flags & !known != 0 {
            fail(Errno::Inval, "unknown flag")
        } else if changes && self.export.read_only() {
            fail(Errno::Perm, "the export is read-only")
        } else if request.command == command::FLUSH && (request.offset, request.len) != (0, 0) {
            fail(Errno::Inval, "a flush has no offset and no length")
        } else if end.is_none_or(|end| end > self.export.size()) {
            let writes = matches!(request.command, command::WRITE | command::WRITE_ZEROES);
            fail(if writes { Errno::NoSpace } else { Errno::Inval }, "beyond the end of the export")
        } else if request.command == command::READ && request.len > MAX_PAYLOAD {
            let errno = if self.structured { Errno::Overflow } else { Errno::Inval };
            fail(errno, "more than 32 MiB at a time")
        } else {
            Ok(())
        }
    }

    fn extents(&self, request: &Request) -> Result<Vec<Extent>, Failure> {
        if !self.allocation {
            return fail(Errno::Inval, "base:allocation was not negotiated");
        }
        if request.len == 0 {
            return fail(Errno::Inval, "block status of nothing");
        }
        let mut extents = self.export.extents(request.offset, u64::from(request.len))?;
        if request.flags & command_flag::REQ_ONE != 0 {
            extents.truncate(1);
        }
        if extents.is_empty() {
            return fail(Errno::Io, "the export does not know what is there");
        }
        Ok(extents)
    }

    fn encode(&self, request: &Request, answer: Answer) -> Reply {
        match answer {
            Answer::Data(data) if self.structured && data.is_empty() => {
                Reply { head: chunk_head(request, chunk::NONE, 0), data }
            }
            Answer::Data(data) if self.structured => {
                let mut head = chunk_head(request, chunk::OFFSET_DATA, 8 + data.len());
                head.extend(request.offset.to_be_bytes());
                Reply { head, data }
            }
            Answer::Extents(extents) => {
                let mut head = chunk_head(request, chunk::BLOCK_STATUS, 4 + 8 * extents.len());
                head.extend(ALLOCATION_ID.to_be_bytes());
                for extent in extents {
                    // Within a request's length, which has 32 bits.
                    head.extend((extent.bytes as u32).to_be_bytes());
                    head.extend((if extent.zero { HOLE_AND_ZERO } else { 0 }).to_be_bytes());
                }
                Reply { head, data: Vec::new() }
            }
            Answer::Data(data) => Reply { head: simple_head(request, 0), data },
            Answer::Done => Reply { head: simple_head(request, 0), data: Vec::new() },
        }
    }

    fn encode_failure(&self, request: &Request, failure: &Failure) -> Reply {
        let errno = failure.errno as u32;
        if !self.structured {
            return Reply { head: simple_head(request, errno), data: Vec::new() };
        }
        let message = failure.message.as_bytes();
        let message = &message[..message.len().min(200)];
        let mut head = chunk_head(request, chunk::ERROR, 6 + message.len());
        head.extend(errno.to_be_bytes());
        head.extend((message.len() as u16).to_be_bytes());
        head.extend(message);
        Reply { head, data: Vec::new() }
    }
}

fn simple_head(request: &Request, errno: u32) -> Vec<u8> {
    let mut head = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    head.extend(errno.to_be_bytes());
    head.extend(request.cookie.to_be_bytes());
    head
}

/// The header of the only chunk of a structured reply.
fn chunk_head(request: &Request, kind: u16, len: usize) -> Vec<u8> {
    let mut head = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    head.extend(chunk::DONE.to_be_bytes());
    head.extend(kind.to_be_bytes());
    head.extend(request.cookie.to_be_bytes());
    head.extend((len as u32).to_be_bytes());
    head
}
