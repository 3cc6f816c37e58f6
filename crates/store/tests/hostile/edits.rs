//! Edits as seeds are made of.

use super::script::{Edit, NUMBERS, Op, Script};

pub(crate) fn script(flags: u8, edits: impl Into<Vec<Edit>>) -> Script {
    Script { flags, edits: edits.into() }
}

pub(crate) fn edit(file: u8, layer: u8, op: Op, value: u16, at: u32) -> Edit {
    Edit { file, layer, op, value, part: 0, at, data: Vec::new() }
}

/// Inserts data, or overwrites what is there.
pub(crate) fn write(file: u8, layer: u8, op: Op, at: u32, data: &[u8]) -> Edit {
    Edit { data: data.to_vec(), ..edit(file, layer, op, 0, at) }
}

/// A number of so many bytes (2 to the power of `width`).
pub(crate) fn number(file: u8, layer: u8, at: u32, width: u16, number: u64) -> Edit {
    edit(file, layer, Op::Number, width << 8 | which(number), at)
}

/// The decimal number number `at` of a text.
pub(crate) fn digits(file: u8, layer: u8, at: u32, number: u64) -> Edit {
    edit(file, layer, Op::Digits, which(number), at)
}

/// The how manieth of the numbers that is.
fn which(number: u64) -> u16 {
    NUMBERS.iter().position(|known| *known == number).unwrap() as u16
}
