//! What a client says, built and taken apart. Written after the protocol, not after the server.

pub(crate) const IHAVEOPT: &[u8; 8] = b"IHAVEOPT";
pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Bytes before an option's data.
pub(crate) const OPTION_HEAD: usize = 16;
/// Bytes before a write's payload.
pub(crate) const REQUEST_HEAD: usize = 28;

/// Handshake flags that the server accepts: fixed newstyle, and no zeroes after an old choice.
pub(crate) const FIXED: u32 = 1;
pub(crate) const NO_ZEROES: u32 = 2;

pub(crate) mod options {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    Cache,
    WriteZeroes,
    BlockStatus,
}

impl Command {
    pub(crate) const ALL: [Command; 8] = [
        Command::Read,
        Command::Write,
        Command::Disconnect,
        Command::Flush,
        Command::Trim,
        Command::Cache,
        Command::WriteZeroes,
        Command::BlockStatus,
    ];
}

/// A request without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Request {
    pub(crate) fn command(&self) -> Option<Command> {
        Command::ALL.get(usize::from(self.command)).copied()
    }

    pub(crate) fn is(&self, command: Command) -> bool {
        self.command() == Some(command)
    }

    /// Where what it asks for ends.
    pub(crate) fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))
    }

    /// Takes a request's header off the front.
    pub(crate) fn take(said: &mut Bytes<'_>) -> Option<Request> {
        (said.u32()? == REQUEST_MAGIC).then_some(())?;
        let (flags, command) = (said.u16()?, said.u16()?);
        Some(Request { flags, command, cookie: said.u64()?, offset: said.u64()?, len: said.u32()? })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            &REQUEST_MAGIC.to_be_bytes()[..],
            &self.flags.to_be_bytes(),
            &self.command.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.len.to_be_bytes(),
        ]
        .concat()
    }
}

/// An option with its data.
pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [IHAVEOPT, &number.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
}

/// A string with its length before it.
pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// The data of the options that ask about an export, or choose it.
pub(crate) fn about(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((wanted.len() as u16).to_be_bytes());
    data.extend(wanted.iter().flat_map(|wanted| wanted.to_be_bytes()));
    data
}

/// The data of the options that list or choose contexts.
pub(crate) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query)));
    data
}

/// Cuts all that a client says into its messages, the handshake flags first. Joined again they are the same;
/// what is no message goes with the one before.
pub(crate) fn split(said: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = vec![said[..said.len().min(4)].to_vec()];
    let mut rest = &said[messages[0].len()..];
    while !rest.is_empty() {
        let len = message_len(rest);
        if len == 0 {
            messages.last_mut().unwrap().push(rest[0]);
            rest = &rest[1..];
        } else {
            let (message, after) = rest.split_at(len.min(rest.len()));
            messages.push(message.to_vec());
            rest = after;
        }
    }
    messages
}

/// How long the message is that begins here, as it says; 0 if none does.
fn message_len(said: &[u8]) -> usize {
    if said.starts_with(IHAVEOPT) {
        let len = said.get(12..16).map_or(0, |len| u32::from_be_bytes(len.try_into().unwrap()));
        OPTION_HEAD + len as usize
    } else if said.starts_with(&REQUEST_MAGIC.to_be_bytes()) {
        match Request::take(&mut Bytes(said)) {
            Some(request) if request.is(Command::Write) => REQUEST_HEAD + request.len as usize,
            _ => REQUEST_HEAD,
        }
    } else {
        0
    }
}

/// Takes numbers and bytes off the front; `None` where there is not enough left.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().unwrap()))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().unwrap()))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().unwrap()))
    }
}
