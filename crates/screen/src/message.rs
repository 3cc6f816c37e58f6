//! A plan as bytes: [docs/SCREEN.md](../../../docs/SCREEN.md), *Updates*.

use crate::atlas::Atlases;
use crate::plan::{Op, Plan};

/// The kind of message that an update is.
const UPDATE: u8 = 1;
/// In its flags: the viewer begins anew.
const BEGINS: u8 = 1;

const COPY: u8 = 0;
const FILL: u8 = 1;
const RECALL: u8 = 2;
const EXACT: u8 = 3;
const ROUGH: u8 = 4;

/// Update `number` of a picture of this size.
pub(crate) fn write(number: u32, (width, height): (u32, u32), plan: &Plan, atlases: &Atlases) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + plan.ops.len() * 8 + atlases.exact.len() + atlases.rough.len());
    bytes.extend([UPDATE, if plan.begins { BEGINS } else { 0 }]);
    for side in [width, height] {
        bytes.extend((side as u16).to_le_bytes());
    }
    for number in [number, plan.ops.len() as u32, atlases.exact.len() as u32, atlases.rough.len() as u32] {
        bytes.extend(number.to_le_bytes());
    }
    plan.ops.iter().for_each(|op| write_op(op, &mut bytes));
    bytes.extend(&atlases.exact);
    bytes.extend(&atlases.rough);
    bytes
}

/// Blocks are counted with a byte each way: no picture has more than [`LARGEST`](crate::LARGEST) pixels.
fn write_op(op: &Op, bytes: &mut Vec<u8>) {
    match *op {
        Op::Copy { column, columns, y, height, down } => {
            bytes.extend([COPY, column as u8, columns as u8]);
            bytes.extend((y as u16).to_le_bytes());
            bytes.extend((height as u16).to_le_bytes());
            bytes.extend((down as i16).to_le_bytes());
        }
        Op::Fill { at, count, colour } => {
            let [blue, green, red, _] = colour.to_le_bytes();
            bytes.extend([FILL, at.column as u8, at.row as u8, count as u8, red, green, blue]);
        }
        Op::Recall { at, slot } => {
            bytes.extend([RECALL, at.column as u8, at.row as u8]);
            bytes.extend(slot.to_le_bytes());
        }
        Op::Exact { at, slot } => {
            bytes.extend([EXACT, at.column as u8, at.row as u8]);
            bytes.extend(slot.to_le_bytes());
        }
        Op::Rough { at } => bytes.extend([ROUGH, at.column as u8, at.row as u8]),
    }
}
