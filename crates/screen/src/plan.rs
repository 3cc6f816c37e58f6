//! What a viewer is sent.

use crate::grid::At;

/// One step from what a viewer shows to what it is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// What is there already, elsewhere: `to` is to have what was `down` rows above it (below it, where that is negative).
    Copy {
        /// From the left, in blocks.
        column: u32,
        /// How wide, in blocks.
        columns: u32,
        /// From the top, in pixels.
        y: u32,
        /// How high, in pixels.
        height: u32,
        /// By how much it moves, in pixels: not zero.
        down: i32,
    },
    /// Blocks of one colour, one beside the other.
    Fill {
        /// The first of them.
        at: At,
        /// How many there are.
        count: u32,
        /// `0x00RRGGBB`.
        colour: u32,
    },
    /// A block that it was sent exactly before.
    Recall {
        /// Which.
        at: At,
        /// Where it was kept.
        slot: u16,
    },
    /// A block with all its pixels.
    Exact {
        /// Which.
        at: At,
        /// Where it is to be kept.
        slot: u16,
    },
    /// A block about as it is.
    Rough {
        /// Which.
        at: At,
    },
}

/// Everything that it is sent at once: copies first, in the order in which they are to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether it begins anew, with a black screen of the picture's size and nothing kept.
    pub begins: bool,
    /// How good the rough blocks are, of 100.
    pub quality: u8,
    /// In order.
    pub ops: Vec<Op>,
}

impl Plan {
    /// The blocks that are sent exactly, in order.
    pub(crate) fn exact(&self) -> Vec<At> {
        let exact = |op: &Op| if let Op::Exact { at, .. } = op { Some(*at) } else { None };
        self.ops.iter().filter_map(exact).collect()
    }

    /// The blocks that are sent roughly, in order.
    pub(crate) fn rough(&self) -> Vec<At> {
        let rough = |op: &Op| if let Op::Rough { at } = op { Some(*at) } else { None };
        self.ops.iter().filter_map(rough).collect()
    }
}
