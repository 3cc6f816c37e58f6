//! The handshake after the greeting: options in, replies out, until the client chose an export.

use std::sync::Arc;

use crate::nbd::Export;
use crate::nbd::server::Exports;
use crate::nbd::session::Session;
use crate::nbd::wire::{
    Fields, IHAVEOPT, MAX_NAME, MAX_PAYLOAD, NBDMAGIC, OPTION_REPLY_MAGIC, handshake, info, option,
    option_reply,
};

/// The id under which `base:allocation` is told to the client.
pub(crate) const ALLOCATION_ID: u32 = 1;
const ALLOCATION: &str = "base:allocation";

/// What the server says first.
pub(crate) fn greeting() -> Vec<u8> {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    [NBDMAGIC.as_slice(), IHAVEOPT, &flags.to_be_bytes()].concat()
}

/// One client's negotiation.
pub(crate) struct Negotiation<'a> {
    exports: &'a Exports,
    no_zeroes: bool,
    structured: bool,
    /// The export (as the client called it) for which `base:allocation` was chosen.
    allocation_of: Option<String>,
}

/// What comes after an option.
pub(crate) enum Next {
    /// Another option.
    Option,
    /// Requests.
    Serve(Session),
    /// Nothing.
    Close,
}

impl<'a> Negotiation<'a> {
    /// `client_flags` is the client's answer to the greeting; `None` if it does not speak what we do.
    pub(crate) fn new(exports: &'a Exports, client_flags: u32) -> Option<Negotiation<'a>> {
        let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        let fixed = client_flags & u32::from(handshake::FIXED_NEWSTYLE) != 0;
        let no_zeroes = client_flags & u32::from(handshake::NO_ZEROES) != 0;
        (client_flags & !known == 0 && fixed).then_some(Negotiation {
            exports,
            no_zeroes,
            structured: false,
            allocation_of: None,
        })
    }

    /// Answers one option into `out`.
    pub(crate) fn option(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Next {
        let mut replies = Replies { option, out };
        match option {
            option::EXPORT_NAME => return self.export_name(data, replies.out),
            option::ABORT => {
                replies.send(option_reply::ACK, &[]);
                return Next::Close;
            }
            option::LIST | option::STRUCTURED_REPLY if !data.is_empty() => {
                replies.send(option_reply::ERR_INVALID, b"the option takes no data");
            }
            option::LIST => {
                for name in self.exports.keys() {
                    replies.send(option_reply::SERVER, &prefixed(name));
                }
                replies.send(option_reply::ACK, &[]);
            }
            option::STRUCTURED_REPLY => {
                self.structured = true;
                replies.send(option_reply::ACK, &[]);
            }
            option::INFO | option::GO => return self.info(data, replies),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(data, replies),
            _ => replies.send(option_reply::ERR_UNSUPPORTED, &[]),
        }
        Next::Option
    }

    /// The export of that name; if there is only one, it is also the one without a name.
    fn find(&self, name: &str) -> Option<(&'a String, &'a Arc<dyn Export>)> {
        self.exports.get_key_value(name).or_else(|| {
            let mut all = self.exports.iter();
            all.next().filter(|_| name.is_empty() && all.next().is_none())
        })
    }

    fn session(&self, name: &str, export: &Arc<dyn Export>) -> Session {
        let allocation = self.allocation_of.as_deref() == Some(name);
        Session::new(export.clone(), self.structured, allocation)
    }

    /// The old way to choose, which knows no errors.
    fn export_name(&self, data: &[u8], out: &mut Vec<u8>) -> Next {
        let name = std::str::from_utf8(data).ok().filter(|name| name.len() <= MAX_NAME);
        let Some((name, (_, export))) = name.and_then(|name| Some((name, self.find(name)?))) else {
            return Next::Close;
        };
        let session = self.session(name, export);
        out.extend(export.size().to_be_bytes());
        out.extend(session.transmission_flags().to_be_bytes());
        if !self.no_zeroes {
            out.extend([0; 124]);
        }
        Next::Serve(session)
    }

    fn info(&self, data: &[u8], mut replies: Replies<'_>) -> Next {
        let Some((name, wanted)) = parse_info(data) else {
            replies.send(option_reply::ERR_INVALID, b"malformed option");
            return Next::Option;
        };
        let Some((canonical, export)) = self.find(name) else {
            replies.send(option_reply::ERR_UNKNOWN, b"no such export");
            return Next::Option;
        };
        let session = self.session(name, export);
        let mut about = info::EXPORT.to_be_bytes().to_vec();
        about.extend(export.size().to_be_bytes());
        about.extend(session.transmission_flags().to_be_bytes());
        replies.send(option_reply::INFO, &about);
        if wanted.contains(&info::NAME) {
            replies.send(option_reply::INFO, &[&info::NAME.to_be_bytes(), canonical.as_bytes()].concat());
        }
        let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, 4096, MAX_PAYLOAD] {
            sizes.extend(size.to_be_bytes());
        }
        replies.send(option_reply::INFO, &sizes);
        replies.send(option_reply::ACK, &[]);
        if replies.option == option::GO { Next::Serve(session) } else { Next::Option }
    }

    fn meta_context(&mut self, data: &[u8], mut replies: Replies<'_>) {
        let set = replies.option == option::SET_META_CONTEXT;
        if set {
            self.allocation_of = None;
        }
        let Some((name, queries)) = parse_meta_context(data).filter(|_| self.structured) else {
            let why = "malformed option, or structured replies were not chosen first";
            return replies.send(option_reply::ERR_INVALID, why.as_bytes());
        };
        if self.find(name).is_none() {
            return replies.send(option_reply::ERR_UNKNOWN, b"no such export");
        }
        let asked = queries.contains(&ALLOCATION);
        let listed = !set && (queries.is_empty() || queries.contains(&"base:"));
        if asked || listed {
            // When listing, ids mean nothing.
            let id: u32 = if set { ALLOCATION_ID } else { 0 };
            replies.send(option_reply::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()].concat());
        }
        if set && asked {
            self.allocation_of = Some(name.to_owned());
        }
        replies.send(option_reply::ACK, &[]);
    }
}

fn prefixed(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes(), name.as_bytes()].concat()
}

fn parse_info(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u16()?;
    let wanted = (0..count).map(|_| fields.u16()).collect::<Option<_>>()?;
    fields.0.is_empty().then_some((name, wanted))
}

fn parse_meta_context(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u32()?;
    // Not collected by size: the count is only what the client says.
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(fields.string()?);
    }
    fields.0.is_empty().then_some((name, queries))
}

/// The replies to one option.
struct Replies<'a> {
    option: u32,
    out: &'a mut Vec<u8>,
}

impl Replies<'_> {
    fn send(&mut self, kind: u32, data: &[u8]) {
        append_reply(self.out, self.option, kind, data);
    }
}

/// Appends a reply to an option.
pub(crate) fn append_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
}
