//! Inputs as scripts: edits of the files of a sound store.
//!
//! ```text
//!   flags   edit  edit  …         u8, then of each edit:
//!   0  1    u8    file            of those that may be edited, modulo their number
//!   1  1    u8    layer, op       4 bits each; what a file's layers are, `remade` says
//!   2  2    u16   value           a number, or the length of the data that follows
//!   4  1    u8    part            of the layer, where it has several
//!   5  3    u24   at              an offset, modulo the length; with the highest bit from the end
//!   8  …          data            of those that insert or overwrite
//! ```
//! Any bytes are a script, and most changes to one are a change to one edit.

use std::ops::Range;

/// More are ignored: inputs stay quick.
const MOST_EDITS: usize = 16;
const HEAD: usize = 8;
const FROM_END: u32 = 0x80_0000;

/// The mutated store keeps its index of all packs, instead of being without.
pub(crate) const WITH_INDEX: u8 = 1;
/// The store that is sent to has the first snapshots already.
pub(crate) const SENT_BEFORE: u8 = 2;

/// Numbers at which something changes, or could: counts, limits, ends, overflows.
pub(crate) const NUMBERS: [u64; 33] = [
    0,
    1,
    2,
    3,
    32,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
    4095,
    4096,
    4097,
    8192,
    u16::MAX as u64,
    512 << 10,
    (512 << 10) + 1,
    1 << 20,
    (1 << 20) + 1,
    256 << 20,
    (256 << 20) + 1,
    i32::MAX as u64,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 32,
    (1 << 44) - 4096,
    1 << 44,
    i64::MAX as u64,
    u64::MAX - 4095,
    u64::MAX,
];

/// What is done to the bytes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Of the byte at that place the bit `value`.
    Flip,
    /// One of [`NUMBERS`] (the lower byte of `value`), 1, 2, 4 or 8 bytes long (the upper one).
    Number,
    /// The data.
    Insert,
    /// As long as the data is.
    Overwrite,
    /// So many bytes.
    Delete,
    /// All from there on.
    Truncate,
    /// Of the text's decimal numbers the one of that number becomes one of [`NUMBERS`].
    Digits,
    /// So many bytes come twice.
    Double,
    /// The whole file has the content of another, instead of what is done to it otherwise.
    Become,
    /// The whole file is not there.
    Remove,
}

impl Op {
    pub(crate) const ALL: [Op; 10] = [
        Op::Flip,
        Op::Number,
        Op::Insert,
        Op::Overwrite,
        Op::Delete,
        Op::Truncate,
        Op::Digits,
        Op::Double,
        Op::Become,
        Op::Remove,
    ];

    fn has_data(self) -> bool {
        matches!(self, Op::Insert | Op::Overwrite)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) file: u8,
    pub(crate) layer: u8,
    pub(crate) op: Op,
    pub(crate) value: u16,
    pub(crate) part: u8,
    pub(crate) at: u32,
    pub(crate) data: Vec<u8>,
}

/// What is done to a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) flags: u8,
    pub(crate) edits: Vec<Edit>,
}

impl Script {
    pub(crate) fn decode(input: &[u8]) -> Script {
        let Some((flags, mut rest)) = input.split_first() else { return Script::default() };
        let mut edits = Vec::new();
        while let (Some((head, after)), true) = (rest.split_first_chunk::<HEAD>(), edits.len() < MOST_EDITS) {
            let [file, layer_op, v0, v1, part, a0, a1, a2] = *head;
            let op = Op::ALL[usize::from(layer_op & 15) % Op::ALL.len()];
            let value = u16::from_le_bytes([v0, v1]);
            let data = if op.has_data() { after.len().min(value.into()) } else { 0 };
            let (data, after) = after.split_at(data);
            let at = u32::from_le_bytes([a0, a1, a2, 0]);
            edits.push(Edit { file, layer: layer_op >> 4, op, value, part, at, data: data.to_vec() });
            rest = after;
        }
        Script { flags: *flags, edits }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.flags];
        for edit in &self.edits {
            let value = if edit.op.has_data() { edit.data.len() as u16 } else { edit.value };
            bytes.extend([edit.file, edit.layer << 4 | edit.op as u8]);
            bytes.extend(value.to_le_bytes());
            bytes.push(edit.part);
            bytes.extend(&edit.at.to_le_bytes()[..3]);
            bytes.extend(&edit.data);
        }
        bytes
    }

    /// The edits of one of so many files.
    pub(crate) fn of(&self, file: usize, files: usize) -> Edits<'_> {
        Edits(self.edits.iter().filter(|edit| usize::from(edit.file) % files == file).collect())
    }
}

/// What is done to one file.
#[derive(Default)]
pub(crate) struct Edits<'a>(Vec<&'a Edit>);

impl Edits<'_> {
    /// What becomes of the file as a whole, whatever else is done to it.
    pub(crate) fn fate(&self) -> Option<&Edit> {
        self.0.iter().copied().find(|edit| matches!(edit.op, Op::Become | Op::Remove))
    }

    /// Whether a layer below `end` is edited.
    pub(crate) fn reach_below(&self, end: u8) -> bool {
        self.0.iter().any(|edit| edit.layer < end)
    }

    /// Does to a layer's bytes, in one part, what is to be done.
    pub(crate) fn apply(&self, layer: u8, bytes: &mut Vec<u8>) {
        self.apply_to_parts(layer, &mut [bytes]);
    }

    /// Does to a layer's parts, of which there is one at least, what is to be done.
    pub(crate) fn apply_to_parts(&self, layer: u8, parts: &mut [&mut Vec<u8>]) {
        for edit in self.0.iter().filter(|edit| edit.layer == layer) {
            let part = usize::from(edit.part) % parts.len();
            edit.apply(parts[part]);
        }
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = self.place(bytes.len());
        let until = |count: usize| bytes.len().min(at + count);
        let number = NUMBERS[usize::from(self.value as u8) % NUMBERS.len()];
        match self.op {
            Op::Flip => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (self.value % 8);
                }
            }
            Op::Number => {
                let width = 1 << ((self.value >> 8) % 4);
                let end = until(width);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Op::Insert => drop(bytes.splice(at..at, self.data.iter().copied())),
            Op::Overwrite => {
                let end = until(self.data.len());
                bytes.splice(at..end, self.data.iter().copied());
            }
            Op::Delete => drop(bytes.drain(at..until(self.value.into()))),
            Op::Truncate => bytes.truncate(at),
            Op::Digits => self.set_digits(bytes, number),
            Op::Double => {
                let again = bytes[at..until(self.value.into())].to_vec();
                bytes.splice(at..at, again);
            }
            Op::Become | Op::Remove => {}
        }
    }

    fn place(&self, length: usize) -> usize {
        let at = (self.at & (FROM_END - 1)) as usize % (length + 1);
        if self.at & FROM_END == 0 { at } else { length - at }
    }

    fn set_digits(&self, text: &mut Vec<u8>, number: u64) {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for at in (0..text.len()).filter(|at| text[*at].is_ascii_digit()) {
            match runs.last_mut() {
                Some(run) if run.end == at => run.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        if let Some(run) = runs.get(self.place(runs.len())) {
            text.splice(run.clone(), number.to_string().into_bytes());
        }
    }
}

/// A name that a file can have, of what editing made of one.
pub(crate) fn file_name(bytes: &[u8]) -> String {
    let mut name = String::from_utf8_lossy(bytes).replace(['/', '\0'], "_");
    while name.len() > 255 {
        name.pop();
    }
    if ["", ".", ".."].contains(&name.as_str()) { "_".to_owned() } else { name }
}

/// An offset that is counted from the end.
pub(crate) fn from_end(bytes: u32) -> u32 {
    bytes | FROM_END
}
