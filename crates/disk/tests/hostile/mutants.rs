//! Inputs made of other inputs, message by message: what flips of single bytes would take long to find.

use super::dice::Dice;
use super::messages::options::{
    EXPORT_NAME, GO, INFO, LIST, LIST_META_CONTEXT, SET_META_CONTEXT, STRUCTURED_REPLY,
};
use super::messages::{
    Command, OPTION_HEAD, REQUEST_HEAD, REQUEST_MAGIC, Request, about, contexts, option, split,
};
use super::{DISK, READ_ONLY};

/// Lengths and offsets at which something changes, or could: sectors, pages, limits, ends, overflows.
const NUMBERS: [u64; 24] = [
    0,
    1,
    511,
    512,
    4095,
    4096,
    4097,
    2 * 4096,
    10 * 4096 - 1,
    16 << 10,
    (16 << 10) + 1,
    READ_ONLY - 1,
    READ_ONLY,
    64 << 12,
    DISK - 4096,
    DISK - 1,
    DISK,
    DISK + 1,
    32 << 20,
    (32 << 20) + 1,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 44,
    u64::MAX - 4095,
];

/// Something like `input`, but for one to four changes.
pub(crate) fn mutant(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut messages = split(input);
    for _ in 0..1 + dice.roll(4) {
        change(&mut messages, dice);
    }
    messages.concat()
}

fn change(messages: &mut Vec<Vec<u8>>, dice: &mut Dice) {
    let (at, count) = (dice.roll(messages.len()), messages.len());
    let message = &mut messages[at];
    match dice.roll(10) {
        0 | 1 => messages.insert(at + 1, any_message(dice)),
        2 if count > 1 => drop(messages.remove(at)),
        3 => {
            let again = with_another_cookie(message, dice);
            messages.insert(at + 1, again);
        }
        4 => {
            let other = dice.roll(count);
            messages.swap(at, other);
        }
        5 => message.truncate(dice.roll(message.len() + 1)),
        6 => messages.truncate(at + 1),
        7 if !message.is_empty() => {
            let byte = dice.roll(message.len());
            message[byte] ^= 1 << dice.roll(8);
        }
        _ => set_a_field(message, dice),
    }
}

/// Sets a number in a message's header to another that makes a difference.
fn set_a_field(message: &mut [u8], dice: &mut Dice) {
    let number = dice.pick(&NUMBERS);
    let is_request = message.starts_with(&REQUEST_MAGIC.to_be_bytes());
    let fields: &[(usize, usize)] = if is_request && message.len() >= REQUEST_HEAD {
        &[(4, 2), (6, 2), (16, 8), (16, 8), (24, 4), (24, 4)]
    } else if message.len() >= OPTION_HEAD + 4 {
        // The last is the length of a name.
        &[(8, 4), (12, 4), (16, 4)]
    } else if message.len() >= OPTION_HEAD {
        &[(8, 4), (12, 4)]
    } else {
        return;
    };
    let (at, bytes) = dice.pick(fields);
    message[at..at + bytes].copy_from_slice(&number.to_be_bytes()[8 - bytes..]);
}

/// A message again. A request has another cookie, so that its reply can be told from the first one's.
fn with_another_cookie(message: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut again = message.to_vec();
    if message.starts_with(&REQUEST_MAGIC.to_be_bytes()) && message.len() >= REQUEST_HEAD {
        again[8..16].copy_from_slice(&dice.next().to_be_bytes());
    }
    again
}

/// A message as it should be, or nearly.
fn any_message(dice: &mut Dice) -> Vec<u8> {
    let name = dice.pick(&["d", "d", "r", "", "x"]);
    match dice.roll(16) {
        0 => option(STRUCTURED_REPLY, &[]),
        1 => option(LIST, &[]),
        2 => option(dice.pick(&[INFO, GO]), &about(name, &[])),
        3 => option(dice.pick(&[INFO, GO]), &about(name, &[1, 3, 77])),
        4 => option(dice.pick(&[LIST_META_CONTEXT, SET_META_CONTEXT]), &contexts(name, &["base:allocation"])),
        5 => option(
            dice.pick(&[LIST_META_CONTEXT, SET_META_CONTEXT]),
            &contexts(name, &["base:", "qemu:dirty-bitmap:x"]),
        ),
        6 => option(EXPORT_NAME, name.as_bytes()),
        7 => option(dice.roll(13) as u32, &[]),
        _ => any_request(dice),
    }
}

fn any_request(dice: &mut Dice) -> Vec<u8> {
    let (at, len) = (dice.pick(&NUMBERS), dice.pick(&NUMBERS) as u32);
    let command = dice.pick(&Command::ALL);
    let flags = dice.pick(&[0, 0, 0, 0, 1, 2, 4, 8, 16, 18]);
    let request = Request { flags, command: command as u16, cookie: dice.next(), offset: at, len };
    let mut message = request.encode();
    if command == Command::Write {
        // Most come whole; those that announce more than is said have been left in the middle.
        message.resize(REQUEST_HEAD + (len as usize).min(2 * 4096), dice.next() as u8);
    }
    message
}
