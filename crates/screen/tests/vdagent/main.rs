//! What is said to a guest's agent: byte by byte, and when it says what no agent does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

mod hostile;

use std::sync::Arc;

use proptest::prelude::*;
use watari_screen::clipboard::{Copied, LONGEST, Lost, Talk};

const CLIPBOARD: u32 = 4;
const ANNOUNCE: u32 = 6;
const GRAB: u32 = 7;
const REQUEST: u32 = 8;
const RELEASE: u32 = 9;

const BY_DEMAND: u32 = 1 << 5;
const SELECTION: u32 = 1 << 6;
const CRLF: u32 = 1 << 9;

/// The clipboard, where an agent says which one it means.
const IT: u32 = 0;
const PRIMARY: u32 = 1;
const NONE: u32 = 0;
const UTF8: u32 = 1;
const PNG: u32 = 2;

fn chunk(port: u32, data: &[u8]) -> Vec<u8> {
    [&port.to_le_bytes(), &(data.len() as u32).to_le_bytes(), data].concat()
}

fn message(kind: u32, numbers: &[u32], text: &str) -> Vec<u8> {
    let size = (numbers.len() * 4 + text.len()) as u32;
    let header = [1, kind, 0, 0, size];
    let mut bytes: Vec<u8> = header.iter().chain(numbers).flat_map(|number| number.to_le_bytes()).collect();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// As agents of Linux do it: a message is a chunk, however long.
fn sent(kind: u32, numbers: &[u32], text: &str) -> Vec<u8> {
    chunk(1, &message(kind, numbers, text))
}

/// All that it has to say.
fn said(talk: &mut Talk) -> Vec<u8> {
    let mut said = Vec::new();
    while !talk.to_write().is_empty() {
        said.extend_from_slice(talk.to_write());
        talk.wrote(usize::MAX);
    }
    said
}

fn text(text: &str) -> Option<Copied> {
    Some(Copied::Text(text.into()))
}

/// A talk with an agent that can do this.
fn met(can: u32) -> Talk {
    let mut talk = Talk::default();
    assert_eq!(said(&mut talk), sent(ANNOUNCE, &[1, BY_DEMAND | SELECTION], ""));
    assert_eq!(talk.hear(&sent(ANNOUNCE, &[0, can], "")), Ok(None));
    assert!(said(&mut talk).is_empty());
    talk
}

#[test]
fn a_text_is_offered_and_sent_to_whoever_pastes() {
    let mut talk = met(BY_DEMAND | SELECTION);
    assert!(talk.has_agent());
    talk.set(&Arc::from("ä\n"));
    assert_eq!(said(&mut talk), sent(GRAB, &[IT, UTF8], ""));
    talk.set(&Arc::from("ä\n"));
    assert!(said(&mut talk).is_empty(), "it has been offered");
    for _ in 0..2 {
        assert_eq!(talk.hear(&sent(REQUEST, &[IT, UTF8], "")), Ok(None));
        assert_eq!(said(&mut talk), sent(CLIPBOARD, &[IT, UTF8], "ä\n"));
    }
    // Whoever wants something else is told that there is not.
    for (selection, kind) in [(PRIMARY, UTF8), (IT, PNG)] {
        assert_eq!(talk.hear(&sent(REQUEST, &[selection, kind], "")), Ok(None));
        assert_eq!(said(&mut talk), sent(CLIPBOARD, &[selection, NONE], ""));
    }
    // A long one goes in chunks that an agent takes.
    let long = "0123456789".repeat(300);
    talk.set(&Arc::from(&*long));
    said(&mut talk);
    assert_eq!(talk.hear(&sent(REQUEST, &[IT, UTF8], "")), Ok(None));
    let message = message(CLIPBOARD, &[IT, UTF8], &long);
    assert_eq!(said(&mut talk), [chunk(1, &message[..2048]), chunk(1, &message[2048..])].concat());
}

#[test]
fn what_is_copied_in_the_guest_is_asked_for_and_told_once() {
    let mut talk = met(BY_DEMAND | SELECTION);
    let copy = |talk: &mut Talk, text: &str| {
        assert_eq!(talk.hear(&sent(GRAB, &[IT, PNG, UTF8], "")), Ok(None));
        assert_eq!(said(talk), sent(REQUEST, &[IT, UTF8], ""));
        talk.hear(&sent(CLIPBOARD, &[IT, UTF8], text)).unwrap()
    };
    assert_eq!(copy(&mut talk, "a"), text("a"));
    assert_eq!(copy(&mut talk, "a"), text("a"), "it was copied again");
    talk.set(&Arc::from("a"));
    assert!(said(&mut talk).is_empty(), "the guest has it");
    talk.set(&Arc::from("b"));
    said(&mut talk);
    assert_eq!(copy(&mut talk, "b"), None, "it was ours");
    assert_eq!(copy(&mut talk, "c"), text("c"));
    assert_eq!(copy(&mut talk, "b"), text("b"), "it is not ours any more");
    // What comes late is not what will be pasted.
    talk.set(&Arc::from("d"));
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, UTF8], "c")), Ok(None));
    // Neither pictures nor what is marked with the mouse are a text that is copied.
    assert_eq!(said(&mut talk), sent(GRAB, &[IT, UTF8], ""));
    assert_eq!(talk.hear(&sent(GRAB, &[PRIMARY, UTF8], "")), Ok(None));
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[PRIMARY, UTF8], "e")), Ok(None));
    assert_eq!(talk.hear(&sent(GRAB, &[IT, PNG], "")), Ok(None));
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, PNG], "e")), Ok(None));
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, NONE], "")), Ok(None));
    assert!(said(&mut talk).is_empty());
    // A guest whose clipboard is empty is offered what it had; its agent says so in one byte.
    assert_eq!(copy(&mut talk, "f"), text("f"));
    assert_eq!(
        talk.hear(&chunk(1, &[&message(RELEASE, &[], "")[..16], &[1, 0, 0, 0, 0]].concat())),
        Ok(None)
    );
    talk.set(&Arc::from("f"));
    assert_eq!(said(&mut talk), sent(GRAB, &[IT, UTF8], ""));
}

#[test]
fn an_agent_that_knows_one_clipboard_and_ends_lines_its_way_is_understood() {
    let mut talk = met(BY_DEMAND | CRLF);
    talk.set(&Arc::from("a\nb"));
    assert_eq!(said(&mut talk), sent(GRAB, &[UTF8], ""));
    assert_eq!(talk.hear(&sent(REQUEST, &[UTF8], "")), Ok(None));
    assert_eq!(said(&mut talk), sent(CLIPBOARD, &[UTF8], "a\r\nb"));
    assert_eq!(talk.hear(&sent(GRAB, &[UTF8], "")), Ok(None));
    assert_eq!(said(&mut talk), sent(REQUEST, &[UTF8], ""));
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[UTF8], "c\r\nd\0")), Ok(text("c\nd")));
    assert!(!met(1).has_agent(), "one that knows of no clipboard");
}

#[test]
fn what_is_too_long_is_not_taken() {
    let mut talk = met(BY_DEMAND | SELECTION);
    for (bytes, copied) in
        [(LONGEST, text(&"x".repeat(LONGEST))), (LONGEST + 1, Some(Copied::TooLong(LONGEST + 1)))]
    {
        assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, UTF8], &"x".repeat(bytes))), Ok(copied));
    }
    for nothing in ["", "\0"] {
        assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, UTF8], nothing)), Ok(None));
    }
    // Others' messages, of any length, and what is between the agent and a server.
    assert_eq!(talk.hear(&sent(12, &[], &"x".repeat(3 * LONGEST))), Ok(None));
    assert_eq!(talk.hear(&chunk(2, b"whatever it is")), Ok(None));
    assert!(!talk.is_amid() && said(&mut talk).is_empty());
    assert_eq!(talk.hear(&sent(CLIPBOARD, &[IT, UTF8], "x")), Ok(text("x")));
}

#[test]
fn what_no_agent_says_ends_the_connection() {
    assert_eq!(met(BY_DEMAND).hear(&chunk(3, b"")), Err(Lost::Port(3)));
    assert_eq!(met(BY_DEMAND).hear(&chunk(1, &[9; 20])), Err(Lost::Protocol(0x0909_0909)));
    assert_eq!(met(BY_DEMAND).hear(&sent(REQUEST, &[UTF8], "").repeat(65)), Err(Lost::Greedy));
    assert_eq!(met(BY_DEMAND).hear(&sent(CLIPBOARD, &[UTF8], "a\0b")), Err(Lost::NoText));
    let no_text = [&message(CLIPBOARD, &[UTF8], "x")[..24], &[0xff]].concat();
    assert_eq!(met(BY_DEMAND).hear(&chunk(1, &no_text)), Err(Lost::NoText));
}

#[test]
fn an_agent_that_starts_again_is_told_all_again() {
    let start = sent(ANNOUNCE, &[1, BY_DEMAND], "");
    let mut talk = met(BY_DEMAND | SELECTION);
    talk.set(&Arc::from("a"));
    said(&mut talk);
    // What the last one asked for is nothing to the next.
    assert_eq!(talk.hear(&[&*sent(REQUEST, &[IT, UTF8], ""), &*start].concat()), Ok(None));
    let answer = [sent(ANNOUNCE, &[0, BY_DEMAND | SELECTION], ""), sent(GRAB, &[UTF8], "")].concat();
    assert_eq!(said(&mut talk), answer);

    // It would take the rest of a message for something else.
    talk.set(&Arc::from("b"));
    assert!(!talk.to_write().is_empty());
    talk.wrote(3);
    assert_eq!(talk.hear(&start), Err(Lost::AnotherAgent));
    let mut talk = talk.anew();
    assert_eq!(said(&mut talk), sent(ANNOUNCE, &[1, BY_DEMAND | SELECTION], ""));
    assert_eq!(talk.hear(&sent(ANNOUNCE, &[0, BY_DEMAND], "")), Ok(None));
    assert_eq!(said(&mut talk), sent(GRAB, &[UTF8], ""));
}

#[test]
fn an_agent_that_starts_again_in_the_middle_of_a_message_is_found_out() {
    let text = sent(CLIPBOARD, &[IT, UTF8], &"x".repeat(100));
    let start = sent(ANNOUNCE, &[1, BY_DEMAND | SELECTION], "");
    for cut in 1..text.len() {
        let mut talk = met(BY_DEMAND | SELECTION);
        let heard = talk.hear(&[&text[..cut], &start].concat());
        // It says no more until it is answered: that is waited for in vain, or what it has said makes no sense.
        assert!(heard.is_err() || talk.is_amid(), "cut at {cut}: {heard:?}");
        assert!(heard.is_err() || heard == Ok(None), "cut at {cut}: {heard:?}");
    }
}

/// What an agent may say, and what none does.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let numbers =
        prop::collection::vec(prop_oneof![0..4_u32, Just(BY_DEMAND | SELECTION), any::<u32>()], 0..4);
    let spoken = (0..16_u32, numbers, "[a\n\0é]{0,40}");
    prop_oneof![
        8 => spoken.prop_map(|(kind, numbers, text)| sent(kind, &numbers, &text)),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u32>(), 0..3_u32).prop_map(|(size, port)| [port.to_le_bytes(), size.to_le_bytes()].concat()),
    ]
}

#[test]
fn the_fuzzers_corpus_does_no_harm() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/vdagent");
    let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!inputs.is_empty());
    inputs.iter().for_each(|input| hostile::face(&std::fs::read(input).unwrap()));
}

proptest! {
    #[test]
    fn whatever_is_said_does_no_harm(said in prop::collection::vec(anything(), 0..40), cut in 0..2000_usize) {
        let start = sent(ANNOUNCE, &[1, BY_DEMAND | SELECTION], "");
        let mut said = [start, said.concat()].concat();
        hostile::face(&said);
        said.truncate(cut);
        hostile::face(&said);
    }
}
