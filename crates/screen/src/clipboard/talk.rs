//! What is said to a guest's agent, and what follows from what it says: without I/O and without a clock.
//!
//! ```text
//!   we                              agent
//!   announce, and ask it to ──────►
//!           ◄────────────────────── announce      when it starts, too: then it asks us to
//!
//!   grab: there is a text ────────►               we set one
//!           ◄────────────────────── request       somebody pastes
//!   clipboard: the text ──────────►
//!
//!           ◄────────────────────── grab          somebody copies
//!   request ──────────────────────►
//!           ◄────────────────────── clipboard: the text
//! ```
//!
//! Nothing that is to be said waits as bytes but one message: the rest is known by what is the case, so an agent that takes nothing
//! costs no more memory than one that does.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wire::{Message, Reader, kind, number, write};
use super::{Copied, LONGEST, Lost};

/// Capabilities, by their bits.
mod capability {
    /// Texts are offered, and sent to who asks for them.
    pub(super) const BY_DEMAND: u32 = 1 << 5;
    /// Messages about a clipboard say which one.
    pub(super) const SELECTION: u32 = 1 << 6;
    /// The guest's lines end with two characters.
    pub(super) const CRLF: u32 = 1 << 9;
}

/// The clipboard, among the selections: the others are what is marked with the mouse.
const CLIPBOARD: u8 = 0;

/// A type of what is copied: nothing at all. It answers who asks for what there is not.
const NONE: u32 = 0;
/// Text.
const UTF8: u32 = 1;

/// An agent that asks for more than this before it takes an answer is none.
const MOST_WANTED: usize = 64;

/// One connection to an agent after the other.
#[derive(Debug)]
pub struct Talk {
    reader: Reader,
    agent: Option<Agent>,
    /// The text that was set last, until another one is copied in the guest.
    ours: Option<Arc<str>>,
    /// The text that the guest's clipboard is known to have, of its own.
    theirs: Option<Arc<str>>,
    /// Whether what is to be pasted in the guest is ours.
    is_ours: bool,
    due: Due,
    /// A message, and how much of it was written.
    out: Vec<u8>,
    written: usize,
}

/// What an agent can do.
#[derive(Clone, Copy, Debug)]
struct Agent {
    says_selection: bool,
    has_crlf: bool,
}

/// What is to be said.
#[derive(Debug, Default)]
struct Due {
    /// What we can do, and whether the agent is to answer with what it can do.
    announce: Option<bool>,
    answers: VecDeque<Wanted>,
    grab: bool,
    request: bool,
}

/// What somebody in the guest wants to paste.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    selection: u8,
    kind: u32,
}

impl Default for Talk {
    fn default() -> Talk {
        Talk {
            reader: Reader::default(),
            agent: None,
            ours: None,
            theirs: None,
            is_ours: false,
            due: Due { announce: Some(true), ..Due::default() },
            out: Vec::new(),
            written: 0,
        }
    }
}

impl Talk {
    /// Goes on over another connection, to the same guest: what was set is offered again.
    #[must_use]
    pub fn anew(self) -> Talk {
        Talk { ours: self.ours, is_ours: self.is_ours, ..Talk::default() }
    }

    /// Whether there is an agent, and it knows of clipboards.
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// Whether the agent has begun something that it has not ended. It does so at once, unless it was ended itself.
    pub fn is_amid(&self) -> bool {
        self.reader.is_amid()
    }

    /// Offers a text to the guest, now or when there is an agent. It is at most [`LONGEST`].
    pub fn set(&mut self, text: &Arc<str>) {
        let has = if self.is_ours { &self.ours } else { &self.theirs };
        if has.as_ref() == Some(text) {
            return;
        }
        (self.ours, self.theirs, self.is_ours) = (Some(Arc::clone(text)), None, true);
        (self.due.grab, self.due.request) = (true, false);
    }

    /// Hears what the agent says. Returns what was copied in the guest, the last of it.
    ///
    /// # Errors
    /// [`Lost`]: over this connection nothing can be understood any more.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Result<Option<Copied>, Lost> {
        let mut copied = None;
        while let Some(message) = self.reader.next(&mut bytes)? {
            copied = self.heed(&message)?.or(copied);
        }
        Ok(copied)
    }

    /// What is to be written next; nothing if there is nothing to say.
    pub fn to_write(&mut self) -> &[u8] {
        if self.written == self.out.len() {
            self.out = self.next().unwrap_or_default();
            self.written = 0;
        }
        self.out.get(self.written..).unwrap_or_default()
    }

    /// So much of it was written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written = self.out.len().min(self.written + bytes);
    }

    fn heed(&mut self, message: &Message) -> Result<Option<Copied>, Lost> {
        if message.kind == kind::ANNOUNCE {
            self.meet(&message.body)?;
            return Ok(None);
        }
        let Some(agent) = self.agent else { return Ok(None) };
        let (selection, body) = match message.body.split_first() {
            // A release's is not padded by every agent.
            Some((selection, _)) if agent.says_selection => {
                (*selection, message.body.get(4..).unwrap_or_default())
            }
            _ => (CLIPBOARD, &*message.body),
        };
        match message.kind {
            kind::REQUEST => self.want(Wanted { selection, kind: number(body, 0) })?,
            kind::GRAB if selection == CLIPBOARD => self.yield_to(body),
            kind::RELEASE if selection == CLIPBOARD => self.theirs = None,
            kind::CLIPBOARD if selection == CLIPBOARD && !self.is_ours && number(body, 0) == UTF8 => {
                let before_text = message.body.len() - body.len() + 4;
                return self.learn(
                    agent,
                    message.size.saturating_sub(before_text),
                    body.get(4..).unwrap_or_default(),
                );
            }
            _ => {}
        }
        Ok(None)
    }

    /// An agent says what it can do. One that asks what we can has just started: it knows of nothing that was said.
    fn meet(&mut self, body: &[u8]) -> Result<(), Lost> {
        let (is_new, can) = (number(body, 0) != 0, number(body, 4));
        if is_new {
            if self.written > 0 && self.written < self.out.len() {
                return Err(Lost::AnotherAgent);
            }
            self.out.clear();
            self.written = 0;
            self.due = Due { announce: Some(false), ..Due::default() };
        }
        let has = |capability| can & capability != 0;
        self.agent = has(capability::BY_DEMAND)
            .then(|| Agent { says_selection: has(capability::SELECTION), has_crlf: has(capability::CRLF) });
        self.theirs = None;
        self.due.grab = self.is_ours;
        Ok(())
    }

    fn want(&mut self, wanted: Wanted) -> Result<(), Lost> {
        if self.due.answers.len() == MOST_WANTED {
            return Err(Lost::Greedy);
        }
        self.due.answers.push_back(wanted);
        Ok(())
    }

    /// Something is copied in the guest, of these types.
    fn yield_to(&mut self, types: &[u8]) {
        (self.theirs, self.is_ours, self.due.grab) = (None, false, false);
        self.due.request = types.chunks_exact(4).any(|kind| number(kind, 0) == UTF8);
    }

    /// The guest's clipboard has a text of so many bytes. What we have set is not news, whoever copied it there.
    fn learn(&mut self, agent: Agent, bytes: usize, text: &[u8]) -> Result<Option<Copied>, Lost> {
        if bytes > LONGEST {
            self.ours = None;
            return Ok(Some(Copied::TooLong(bytes)));
        }
        let Some(text) = text_of(text, agent.has_crlf)? else { return Ok(None) };
        self.theirs = Some(Arc::clone(&text));
        if self.ours.as_ref() == Some(&text) {
            return Ok(None);
        }
        self.ours = None;
        Ok(Some(Copied::Text(text)))
    }

    /// The next message that is due.
    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(asks) = self.due.announce.take() {
            let can = capability::BY_DEMAND | capability::SELECTION;
            return Some(write(kind::ANNOUNCE, &[&u32::from(asks).to_le_bytes(), &can.to_le_bytes()]));
        }
        let agent = self.agent?;
        if let Some(wanted) = self.due.answers.pop_front() {
            return Some(self.answer(agent, wanted));
        }
        if std::mem::take(&mut self.due.grab) {
            return Some(agent.message(kind::GRAB, CLIPBOARD, UTF8, b""));
        }
        std::mem::take(&mut self.due.request).then(|| agent.message(kind::REQUEST, CLIPBOARD, UTF8, b""))
    }

    /// Whoever asks is answered, if only that there is nothing: it waits.
    fn answer(&self, agent: Agent, wanted: Wanted) -> Vec<u8> {
        let is_there = self.is_ours && wanted.selection == CLIPBOARD && wanted.kind == UTF8;
        let text = match self.ours.as_deref().filter(|_| is_there) {
            Some(text) if agent.has_crlf => &text.replace('\n', "\r\n"),
            Some(text) => text,
            None => return agent.message(kind::CLIPBOARD, wanted.selection, NONE, b""),
        };
        agent.message(kind::CLIPBOARD, CLIPBOARD, UTF8, text.as_bytes())
    }
}

impl Agent {
    /// A message about a selection and something of type `of`.
    fn message(self, kind: u32, selection: u8, of: u32, text: &[u8]) -> Vec<u8> {
        let selection = [selection, 0, 0, 0];
        let selection = if self.says_selection { &selection[..] } else { &[] };
        write(kind, &[selection, &of.to_le_bytes(), text])
    }
}

/// What the guest says is text; nothing if it is empty. Zeros at its end are some guests' way to end it.
fn text_of(bytes: &[u8], has_crlf: bool) -> Result<Option<Arc<str>>, Lost> {
    let text = str::from_utf8(bytes).map_err(|_| Lost::NoText)?.trim_end_matches('\0');
    // Every header has some: these would be those of an agent that has started again.
    if text.contains('\0') {
        return Err(Lost::NoText);
    }
    let text = if has_crlf { text.replace("\r\n", "\n").into() } else { text.into() };
    Ok(Some(text).filter(|text: &Arc<str>| !text.is_empty()))
}
