//! The messages of an exchange, and their bytes: a kind, the length of what follows as four bytes, little-endian, and that.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use watari_store::{PageFrame, Sent};
use watari_types::{ErrorReport, Generation, MachineId, MachineName, PageHash, SnapshotId};

/// Bytes of a kind and a length.
pub(crate) const HEAD_BYTES: usize = 5;
/// More than a frame of 64 pages with all their names.
const MOST_PAGES_BYTES: u32 = (512 << 10) + 64 * 64 + 1;
const MOST_TEXT_BYTES: u32 = 1 << 20;
/// A manifest has 32 bytes for each page that changed: 128 GiB of them.
const MOST_MANIFEST_BYTES: u32 = 1 << 30;
const NAME_BYTES: usize = size_of::<PageHash>();

/// Which snapshot is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Whose.
    pub machine: MachineId,
    /// What that is called where it is.
    pub name: MachineName,
    /// Its generation.
    pub generation: Generation,
    /// Its tags.
    pub tags: Vec<String>,
    /// Itself and what it descends from, the newest first.
    pub line: Vec<SnapshotId>,
}

/// What the taker says about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is here.
    Here,
    /// It is not here.
    Lacking,
    /// It is not, but what it was said to be a change of is.
    HasBase,
}

/// What goes over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first of a giver.
    Offer(Offer),
    /// Which of the offer's line is here: the place of the nearest.
    Have(Option<u32>),
    /// Pages, each with what it is a change of for the giver.
    Names(Vec<(PageHash, Option<PageHash>)>),
    /// The answers to the first list that has none yet.
    Want(Vec<Answer>),
    /// Pages that were wanted.
    Pages(PageFrame),
    /// What was sent is to be made findable.
    Settle,
    /// It is.
    Settled,
    /// The manifest, as it is.
    Manifest(Vec<u8>),
    /// The snapshot is there.
    Done(Sent),
    /// It cannot be, and why.
    Refuse(ErrorReport),
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadMessage {
    /// There is no such kind.
    #[error("there is no message of kind {0}")]
    Kind(u8),
    /// Longer than any of its kind.
    #[error("a message of kind {kind} has {bytes} bytes")]
    TooLong {
        /// Its kind.
        kind: u8,
        /// As it says.
        bytes: u32,
    },
    /// It does not hold what its kind says.
    #[error("a message of kind {0} does not make sense")]
    Content(u8),
}

/// Kinds, and the most bytes that one of each may have.
const KINDS: [(u8, u32); 10] = [
    (1, MOST_TEXT_BYTES),
    (2, 64),
    (3, super::NAMES_PER_LIST * (2 * NAME_BYTES as u32 + 1)),
    (4, super::NAMES_PER_LIST),
    (5, MOST_PAGES_BYTES),
    (6, 0),
    (7, 0),
    (8, MOST_MANIFEST_BYTES),
    (9, 1024),
    (10, 64 << 10),
];

/// How many bytes follow this head.
///
/// # Errors
/// Nobody sends such a message.
pub(crate) fn length(head: [u8; HEAD_BYTES]) -> Result<u32, BadMessage> {
    let [kind, a, b, c, d] = head;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    match KINDS.iter().find(|(known, _)| *known == kind) {
        None => Err(BadMessage::Kind(kind)),
        Some((_, most)) if bytes > *most => Err(BadMessage::TooLong { kind, bytes }),
        Some(_) => Ok(bytes),
    }
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[0] = match self {
            Message::Offer(offer) => text(1, offer, &mut bytes),
            Message::Have(nearest) => text(2, nearest, &mut bytes),
            Message::Names(names) => {
                for (name, base) in names {
                    bytes.push(u8::from(base.is_some()));
                    bytes.extend(name.0);
                    bytes.extend(base.iter().flat_map(|base| base.0));
                }
                3
            }
            Message::Want(answers) => {
                bytes.extend(answers.iter().map(|answer| *answer as u8));
                4
            }
            Message::Pages(frame) => {
                bytes.push(frame.names.len() as u8 | if frame.bases.is_empty() { 0 } else { CHANGES });
                bytes.extend(frame.names.iter().chain(&frame.bases).flat_map(|name| name.0));
                bytes.extend(&frame.compressed);
                5
            }
            Message::Settle => 6,
            Message::Settled => 7,
            Message::Manifest(manifest) => {
                bytes.extend(manifest);
                8
            }
            Message::Done(sent) => text(9, sent, &mut bytes),
            Message::Refuse(report) => text(10, report, &mut bytes),
        };
        let length = (bytes.len() - HEAD_BYTES) as u32;
        bytes[1..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// A message of this kind with that content.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(kind: u8, content: &[u8]) -> Result<Message, BadMessage> {
        let bad = BadMessage::Content(kind);
        match kind {
            1 => parse(kind, content).map(Message::Offer),
            2 => parse(kind, content).map(Message::Have),
            3 => names(content).map(Message::Names).ok_or(bad),
            4 => {
                content.iter().map(|byte| answer(*byte)).collect::<Option<_>>().map(Message::Want).ok_or(bad)
            }
            5 => frame(content).map(Message::Pages).ok_or(bad),
            6 if content.is_empty() => Ok(Message::Settle),
            7 if content.is_empty() => Ok(Message::Settled),
            8 => Ok(Message::Manifest(content.to_vec())),
            9 => parse(kind, content).map(Message::Done),
            10 => parse(kind, content).map(Message::Refuse),
            6 | 7 => Err(bad),
            _ => Err(BadMessage::Kind(kind)),
        }
    }
}

/// In the byte that counts the pages of a frame: they are changes.
const CHANGES: u8 = 0x80;

/// Appends something as JSON; returns the kind.
fn text(kind: u8, content: &impl Serialize, into: &mut Vec<u8>) -> u8 {
    // What these types hold has nothing that JSON has not.
    let _ = serde_json::to_writer(into, content);
    kind
}

fn parse<T: DeserializeOwned>(kind: u8, content: &[u8]) -> Result<T, BadMessage> {
    serde_json::from_slice(content).map_err(|_| BadMessage::Content(kind))
}

fn answer(byte: u8) -> Option<Answer> {
    [Answer::Here, Answer::Lacking, Answer::HasBase].into_iter().find(|answer| *answer as u8 == byte)
}

fn take_name(content: &mut &[u8]) -> Option<PageHash> {
    let (name, rest) = content.split_first_chunk::<NAME_BYTES>()?;
    *content = rest;
    Some(PageHash(*name))
}

fn names(mut content: &[u8]) -> Option<Vec<(PageHash, Option<PageHash>)>> {
    let mut names = Vec::with_capacity(content.len() / (NAME_BYTES + 1));
    while let Some((has_base, rest)) = content.split_first() {
        content = rest;
        let name = take_name(&mut content)?;
        let base = match has_base {
            0 => None,
            1 => Some(take_name(&mut content)?),
            _ => return None,
        };
        names.push((name, base));
    }
    (names.len() <= super::NAMES_PER_LIST as usize).then_some(names)
}

fn frame(content: &[u8]) -> Option<PageFrame> {
    let (count, mut rest) = content.split_first()?;
    let pages = usize::from(count & !CHANGES);
    if pages == 0 {
        return None;
    }
    let mut take = |count: usize| (0..count).map(|_| take_name(&mut rest)).collect::<Option<Vec<_>>>();
    let names = take(pages)?;
    let bases = take(if count & CHANGES == 0 { 0 } else { pages })?;
    Some(PageFrame { names, bases, compressed: rest.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> PageHash {
        PageHash([number; 32])
    }

    fn decode(bytes: &[u8]) -> Result<Message, BadMessage> {
        let (head, content) = bytes.split_first_chunk().unwrap();
        assert_eq!(length(*head)? as usize, content.len());
        Message::decode(head[0], content)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let offer = Offer {
            machine: MachineId([1; 16]),
            name: "web".parse().unwrap(),
            generation: Generation(7),
            tags: vec!["good".to_owned()],
            line: vec![SnapshotId([2; 32]), SnapshotId([3; 32])],
        };
        let frame = PageFrame { names: vec![hash(1), hash(2)], bases: vec![], compressed: vec![9; 100] };
        let report = ErrorReport::new(watari_types::ErrorKind::NoSpace, "the disk is full", "make room");
        for message in [
            Message::Offer(offer),
            Message::Have(None),
            Message::Have(Some(3)),
            Message::Names(vec![(hash(1), None), (hash(2), Some(hash(3)))]),
            Message::Want(vec![Answer::Here, Answer::Lacking, Answer::HasBase]),
            Message::Pages(PageFrame { bases: vec![hash(5), hash(6)], ..frame.clone() }),
            Message::Pages(frame),
            Message::Settle,
            Message::Settled,
            Message::Manifest(vec![1, 2, 3]),
            Message::Done(Sent { snapshots: 1, pages: 2, bytes: 3 }),
            Message::Refuse(report),
        ] {
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    /// Another version of Watari must read these bytes.
    #[test]
    fn the_bytes_of_messages_stay_what_they_are() {
        assert_eq!(hex::encode(Message::Have(Some(3)).encode()), "020100000033");
        assert_eq!(hex::encode(Message::Settle.encode()), "0600000000");
        let want = Message::Want(vec![Answer::Here, Answer::Lacking, Answer::HasBase]);
        assert_eq!(hex::encode(want.encode()), "0403000000000102");
        let names = Message::Names(vec![(hash(1), None), (hash(2), Some(hash(3)))]).encode();
        let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
        assert_eq!(hex::encode(names), format!("036200000000{one}01{two}{three}"));
        let frame = PageFrame { names: vec![hash(1)], bases: vec![hash(2)], compressed: vec![9] };
        assert_eq!(hex::encode(Message::Pages(frame).encode()), format!("054200000081{one}{two}09"));
        let sent = Message::Done(Sent { snapshots: 1, pages: 2, bytes: 3 }).encode();
        assert_eq!(&sent[HEAD_BYTES..], br#"{"snapshots":1,"pages":2,"bytes":3}"#);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        assert_eq!(length([5, 255, 255, 255, 255]), Err(BadMessage::TooLong { kind: 5, bytes: u32::MAX }));
        assert_eq!(length([6, 1, 0, 0, 0]), Err(BadMessage::TooLong { kind: 6, bytes: 1 }));
        assert_eq!(length([11, 0, 0, 0, 0]), Err(BadMessage::Kind(11)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(kind in 0..12_u8, content in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = Message::decode(kind, &content)
                && matches!(kind, 3..=8)
            {
                prop_assert_eq!(&message.encode()[HEAD_BYTES..], &content[..]);
            }
        }
    }
}
