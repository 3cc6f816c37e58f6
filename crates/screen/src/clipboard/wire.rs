//! Messages as they lie in the port's bytes. Numbers are little-endian:
//!
//! ```text
//!  chunk    port (4), size (4)                            1: between agent and client. Its data follow
//!  message  protocol (4), kind (4), opaque (8), size (4)  its body follows, over as many chunks as it takes
//! ```
//!
//! An agent that starts again in the middle of a message leaves a stream that means something else, or nothing. Whoever reads
//! cannot tell at once; but soon there is a header that cannot be, or what was begun does not end.

use super::{LONGEST, Lost};

/// The port of chunks that are from and for the agent's client.
const CLIENT: u32 = 1;
/// And that of those which a SPICE server would keep to itself.
const SERVER: u32 = 2;
const PROTOCOL: u32 = 1;
/// An agent takes no chunk with more data than this. Those that it sends may have more.
const MOST_IN_CHUNK: usize = 2048;

/// What a message is about. Others there are mean nothing to us.
pub(super) mod kind {
    pub(in super::super) const CLIPBOARD: u32 = 4;
    pub(in super::super) const ANNOUNCE: u32 = 6;
    pub(in super::super) const GRAB: u32 = 7;
    pub(in super::super) const REQUEST: u32 = 8;
    pub(in super::super) const RELEASE: u32 = 9;
}

/// What comes before the text of a message that brings one: a selection, if the agent knows any, and a type.
const BEFORE_TEXT: usize = 8;
/// So much is kept of messages that are lists of capabilities, or of types.
const MOST_OF_LIST: usize = 256;

/// A message that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u32,
    /// How many bytes its body had.
    pub(super) size: usize,
    /// What was kept of it: the beginning of what would be too long, and nothing of what means nothing.
    pub(super) body: Vec<u8>,
}

/// Finds messages in what comes, in whatever pieces that is.
#[derive(Debug, Default)]
pub(super) struct Reader {
    chunk_header: Gathered<8>,
    chunk: Chunk,
    header: Gathered<20>,
    message: Option<Partial>,
}

#[derive(Debug, Default)]
struct Chunk {
    port: u32,
    left: usize,
}

#[derive(Debug)]
struct Partial {
    message: Message,
    left: usize,
}

impl Reader {
    /// Takes bytes from `input` until a message is complete, or all.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Lost> {
        loop {
            while self.chunk.left == 0 {
                let Some(header) = self.chunk_header.gather(input) else { return Ok(None) };
                self.chunk = Chunk { port: number(&header, 0), left: number(&header, 4) as usize };
                if !matches!(self.chunk.port, CLIENT | SERVER) {
                    return Err(Lost::Port(self.chunk.port));
                }
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (mut data, _) = input.split_at(self.chunk.left.min(input.len()));
            let before = data.len();
            let message = if self.chunk.port == CLIENT { self.message(&mut data)? } else { skip(&mut data) };
            let taken = before - data.len();
            self.chunk.left -= taken;
            *input = &input[taken..];
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Whether more has to come of something that was begun.
    pub(super) fn is_amid(&self) -> bool {
        self.chunk.left > 0
            || self.chunk_header.have > 0
            || self.header.have > 0
            || self.message.as_ref().is_some()
    }

    /// Takes bytes from a chunk's data.
    fn message(&mut self, data: &mut &[u8]) -> Result<Option<Message>, Lost> {
        if self.message.is_none() {
            let Some(header) = self.header.gather(data) else { return Ok(None) };
            self.message = Some(Partial::begun(&header)?);
        }
        Ok(self.message.take_if(|partial| partial.take(data)).map(|partial| partial.message))
    }
}

fn skip(data: &mut &[u8]) -> Option<Message> {
    *data = &[];
    None
}

impl Partial {
    fn begun(header: &[u8; 20]) -> Result<Partial, Lost> {
        let (protocol, kind, size) = (number(header, 0), number(header, 4), number(header, 16) as usize);
        if protocol != PROTOCOL {
            return Err(Lost::Protocol(protocol));
        }
        Ok(Partial { message: Message { kind, size, body: Vec::new() }, left: size })
    }

    /// Takes what belongs to it from `data`; returns whether that was the last of it.
    fn take(&mut self, data: &mut &[u8]) -> bool {
        let (mine, rest) = data.split_at(self.left.min(data.len()));
        let room = kept(&self.message).saturating_sub(self.message.body.len());
        self.message.body.extend_from_slice(&mine[..room.min(mine.len())]);
        self.left -= mine.len();
        *data = rest;
        self.left == 0
    }
}

/// How much is kept of a message's body.
fn kept(message: &Message) -> usize {
    match message.kind {
        kind::CLIPBOARD if message.size <= BEFORE_TEXT + LONGEST => message.size,
        kind::CLIPBOARD => BEFORE_TEXT,
        kind::ANNOUNCE | kind::GRAB | kind::REQUEST | kind::RELEASE => MOST_OF_LIST,
        _ => 0,
    }
}

/// A message as an agent is sent it. Its body is `parts`, one after the other.
pub(super) fn write(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut message = Vec::with_capacity(20 + size);
    for number in [PROTOCOL, kind, 0, 0, size as u32] {
        message.extend(number.to_le_bytes());
    }
    parts.iter().for_each(|part| message.extend_from_slice(part));
    let mut bytes = Vec::with_capacity(message.len() + 8 * message.len().div_ceil(MOST_IN_CHUNK));
    for data in message.chunks(MOST_IN_CHUNK) {
        bytes.extend(CLIENT.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}

/// The number at `from`; zero where there is none.
pub(super) fn number(bytes: &[u8], from: usize) -> u32 {
    bytes.get(from..).and_then(|rest| rest.first_chunk()).map_or(0, |number| u32::from_le_bytes(*number))
}

/// So many bytes that belong together.
#[derive(Debug)]
struct Gathered<const SIZE: usize> {
    bytes: [u8; SIZE],
    have: usize,
}

impl<const SIZE: usize> Default for Gathered<SIZE> {
    fn default() -> Self {
        Gathered { bytes: [0; SIZE], have: 0 }
    }
}

impl<const SIZE: usize> Gathered<SIZE> {
    /// Takes what is missing from `input`; returns all of them, once, when nothing is.
    fn gather(&mut self, input: &mut &[u8]) -> Option<[u8; SIZE]> {
        let (mine, rest) = input.split_at((SIZE - self.have).min(input.len()));
        self.bytes[self.have..][..mine.len()].copy_from_slice(mine);
        self.have += mine.len();
        *input = rest;
        (self.have == SIZE).then(|| std::mem::take(self).bytes)
    }
}
