//! What a guest's agent sends, whatever it is: one input, and what must hold.
//!
//! Nothing may panic. In whatever pieces it comes, the same follows from it. What is said to the agent are messages that an agent
//! takes, and no more of them than it gave reason to.

use std::sync::Arc;

use watari_screen::clipboard::{Copied, LONGEST, Lost, Talk};

/// Texts that are set between what the agent says.
const OURS: [&str; 2] = ["ours\n", "another of ours"];

/// What came of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    has_agent: bool,
    is_amid: bool,
    last: Option<Copied>,
    lost: Option<Lost>,
}

/// Panics unless all holds that must.
pub(crate) fn face(input: &[u8]) {
    let whole = hear(input, input.len().max(1));
    for piece in [1, 7, 2056] {
        assert_eq!(hear(input, piece), whole, "in pieces of {piece} bytes");
    }
    converse(input);
}

/// Hears it in pieces, and says nothing.
fn hear(input: &[u8], piece: usize) -> Outcome {
    let mut talk = Talk::default();
    talk.set(&Arc::from(OURS[0]));
    let (mut last, mut lost) = (None, None);
    for bytes in input.chunks(piece) {
        match talk.hear(bytes) {
            Ok(copied) => last = copied.or(last),
            Err(error) => {
                lost = Some(error);
                break;
            }
        }
    }
    // Of a piece in which the connection is lost, nothing is told that came before in it.
    let last = last.filter(|_| lost.is_none());
    Outcome { has_agent: talk.has_agent(), is_amid: talk.is_amid(), last, lost }
}

/// Hears a piece, sets a text, says all that there is to say, and so on.
fn converse(input: &[u8]) {
    let mut talk = Talk::default();
    for (index, bytes) in input.chunks(97).enumerate() {
        match talk.hear(bytes) {
            Ok(Some(Copied::Text(text))) => {
                assert!(!text.is_empty() && text.len() <= LONGEST && !text.contains('\0'))
            }
            Ok(Some(Copied::TooLong(bytes))) => assert!(bytes > LONGEST),
            Ok(None) => {}
            Err(_) => return,
        }
        talk.set(&Arc::from(OURS[index % OURS.len()]));
        let mut said = Vec::new();
        // Each 28 bytes that it says may ask for an answer; and an announcement and a text may be due.
        for _ in 0..=bytes.len() / 28 + 70 {
            let out = talk.to_write();
            // By one byte at first.
            let part = out.len().min(1 + said.len());
            said.extend_from_slice(&out[..part]);
            talk.wrote(part);
        }
        while !talk.to_write().is_empty() {
            said.extend_from_slice(talk.to_write());
            talk.wrote(usize::MAX);
            assert!(said.len() < 100_000, "it is said too much");
        }
        check(&said);
    }
}

/// Whether an agent would take that: spice-vdagentd hangs up otherwise.
fn check(mut said: &[u8]) {
    let number =
        |bytes: &[u8], from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap()) as usize;
    while !said.is_empty() {
        let (port, size) = (number(said, 0), number(said, 4));
        assert!(port == 1 && (20..=2048).contains(&size), "a chunk of {size} bytes for port {port}");
        let message = &said[8..8 + size];
        assert!(
            number(message, 0) == 1 && number(message, 16) == size - 20,
            "a message that is short is one chunk"
        );
        assert!([4, 6, 7, 8].contains(&number(message, 4)));
        said = &said[8 + size..];
    }
}
