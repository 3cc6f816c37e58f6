//! A picture in blocks, and what can be said of each without looking at its pixels again.
//!
//! The unit is the *strip*: one row of pixels of one block, 64 of them or fewer at the right edge. Each has a hash, from which
//! a block's own is made; and because strips are compared, text that has scrolled is found wherever it went.
//!
//! The hashes are XXH3's: of what a guest shows by chance no two different strips have the same within the age of the universe. A guest
//! that looks for such strips on purpose can show its own viewers a wrong picture of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{Picture, Rect};

/// How wide and high a block is, in pixels; at the right and lower edges less.
pub const BLOCK: u32 = 64;
/// More colours than these are not counted.
const FEW: usize = 24;
/// So long a block's changes are remembered for, roughly: after it, a third of them.
const MEMORY_MS: f32 = 500.0;
/// A block that changes so often is part of something that moves: four times a second for long, or as many at once.
const BUSY: f32 = 2.0;

static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// Which block: columns from the left, rows from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// From the left.
    pub column: u32,
    /// From the top.
    pub row: u32,
}

/// What is known of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// What it shows: blocks with the same look the same.
    pub(crate) content: u128,
    /// Its colour, if it has just one.
    pub(crate) colour: Option<u32>,
    /// Whether it has many colours: as most of a photograph has, and hardly any text.
    pub(crate) is_colourful: bool,
    /// When it changed last, in milliseconds.
    pub(crate) changed_at: u64,
    /// How often it has changed lately.
    activity: f32,
}

impl Block {
    /// Whether it is of something that moves, and would be much to send exactly.
    pub(crate) fn is_motion(&self, now: u64) -> bool {
        self.is_colourful && self.activity * decay(now.saturating_sub(self.changed_at)) >= BUSY
    }
}

/// A picture and its blocks.
#[derive(Clone, Debug)]
pub struct Grid {
    picture: Picture,
    columns: u32,
    /// Of each strip the hash: column by column of blocks, from the top.
    strips: Vec<u64>,
    blocks: Vec<Block>,
    version: u64,
}

impl Grid {
    /// That of a picture.
    pub fn new(picture: Picture) -> Grid {
        let (columns, rows) = (picture.width().div_ceil(BLOCK), picture.height().div_ceil(BLOCK));
        let block = Block { content: 0, colour: None, is_colourful: false, changed_at: 0, activity: 0.0 };
        let strips = vec![0; columns as usize * picture.height() as usize];
        let blocks = vec![block; columns as usize * rows as usize];
        let area = picture.area();
        let mut grid = Grid { picture, columns, strips, blocks, version: 0 };
        grid.look(area, 0);
        grid
    }

    /// Makes it that of a black picture of that size, unless it has that size. Then what is drawn next is compared with what was there:
    /// whoever swaps one picture for another shows what moves.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        if (self.picture.width(), self.picture.height()) != (width, height) {
            *self = Grid::new(Picture::new(width, height));
        }
    }

    /// What it is of.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// A number that no other picture has, of any screen: as long as it is the same, so is this one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Lets `draw` change the picture within `rect`, of which what is beyond its edges is cut off, at the time `now` in
    /// milliseconds, and finds out what has changed.
    pub fn draw(&mut self, rect: Rect, now: u64, draw: impl FnOnce(&mut Picture, Rect)) {
        if let Some(rect) = self.picture.clip(rect) {
            draw(&mut self.picture, rect);
            self.look(rect, now);
        }
    }

    pub(crate) fn columns(&self) -> u32 {
        self.columns
    }

    /// All blocks, row by row.
    pub(crate) fn all(&self) -> impl Iterator<Item = (At, &Block)> {
        let columns = self.columns;
        let at = move |index| At { column: index % columns, row: index / columns };
        (0..).map(at).zip(&self.blocks)
    }

    #[cfg(test)]
    fn block(&self, at: At) -> &Block {
        &self.blocks[(at.row * self.columns + at.column) as usize]
    }

    /// The pixels of a block.
    pub(crate) fn rect(&self, at: At) -> Rect {
        let (x, y) = (at.column * BLOCK, at.row * BLOCK);
        let (width, height) = (self.picture.width() - x, self.picture.height() - y);
        Rect { x, y, width: width.min(BLOCK), height: height.min(BLOCK) }
    }

    /// The hashes of all strips of a column of blocks.
    pub(crate) fn strips(&self, column: u32) -> &[u64] {
        let height = self.picture.height() as usize;
        &self.strips[column as usize * height..][..height]
    }

    /// Looks at what may have changed.
    fn look(&mut self, rect: Rect, now: u64) {
        for column in rect.x / BLOCK..(rect.x + rect.width).div_ceil(BLOCK) {
            for row in rect.y / BLOCK..(rect.y + rect.height).div_ceil(BLOCK) {
                let at = At { column, row };
                let block = self.rect(at);
                let first = rect.y.max(block.y);
                let end = (rect.y + rect.height).min(block.y + block.height);
                if self.hash_strips(column, block, first..end) {
                    self.version = VERSIONS.fetch_add(1, Ordering::Relaxed);
                    self.describe(at, block, now);
                }
            }
        }
    }

    /// Whether any of them has changed.
    fn hash_strips(&mut self, column: u32, block: Rect, rows: std::ops::Range<u32>) -> bool {
        let start = column as usize * self.picture.height() as usize;
        let mut changed = false;
        for y in rows {
            let hash = hash(self.picture.row(block.x, y, block.width));
            let strip = &mut self.strips[start + y as usize];
            changed |= *strip != hash;
            *strip = hash;
        }
        changed
    }

    fn describe(&mut self, at: At, rect: Rect, now: u64) {
        let strips = &self.strips(at.column)[rect.y as usize..][..rect.height as usize];
        let content = content(strips);
        let colours = self.colours(rect);
        let block = &mut self.blocks[(at.row * self.columns + at.column) as usize];
        let age = now.saturating_sub(block.changed_at);
        *block = Block {
            content,
            colour: if colours.len() == 1 { colours.first().copied() } else { None },
            is_colourful: colours.len() > FEW,
            changed_at: now,
            activity: block.activity * decay(age) + 1.0,
        };
    }

    /// The colours of a block, until there are many.
    fn colours(&self, rect: Rect) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        let mut last = None;
        for y in rect.y..rect.y + rect.height {
            for pixel in self.picture.row(rect.x, y, rect.width) {
                if last != Some(*pixel) && !found.contains(pixel) {
                    found.push(*pixel);
                    if found.len() > FEW {
                        return found;
                    }
                }
                last = Some(*pixel);
            }
        }
        found
    }
}

/// What a block shows whose strips have these hashes.
fn content(strips: &[u64]) -> u128 {
    let bytes: Vec<u8> = strips.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    xxh3_128(&bytes)
}

/// Never zero, which stands for what is not known.
fn hash(pixels: &[u32]) -> u64 {
    let mut bytes = [0; BLOCK as usize * 4];
    let bytes = &mut bytes[..pixels.len() * 4];
    for (into, pixel) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(pixels) {
        *into = pixel.to_le_bytes();
    }
    xxh3_64(bytes).max(1)
}

fn decay(ms: u64) -> f32 {
    (-(ms as f32) / MEMORY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(grid: &mut Grid, rect: Rect, now: u64, colour: impl Fn(u32, u32) -> u32) {
        grid.draw(rect, now, |picture, rect| {
            for y in rect.y..rect.y + rect.height {
                let row = picture.row_mut(rect.x, y, rect.width);
                (rect.x..).zip(row).for_each(|(x, pixel)| *pixel = colour(x, y));
            }
        });
    }

    #[test]
    fn a_block_changes_when_its_pixels_do_and_only_then() {
        let mut grid = Grid::new(Picture::new(150, 100));
        let before: Vec<u128> = grid.all().map(|(_, block)| block.content).collect();
        assert_eq!((grid.columns(), before.len()), (3, 6));
        let version = grid.version();
        fill(&mut grid, Rect { x: 0, y: 0, width: 150, height: 100 }, 10, |_, _| 0);
        assert_eq!(grid.version(), version, "it is black already");
        fill(&mut grid, Rect { x: 140, y: 90, width: 100, height: 100 }, 20, |_, _| 0xff);
        let after: Vec<u128> = grid.all().map(|(_, block)| block.content).collect();
        let changed: Vec<usize> = (0..6).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [5]);
        assert_eq!(grid.block(At { column: 2, row: 1 }).changed_at, 20);
        assert_eq!(grid.block(At { column: 2, row: 1 }).colour, None);
        assert_eq!(grid.block(At { column: 1, row: 1 }).colour, Some(0));
    }

    #[test]
    fn a_picture_of_the_same_size_is_the_same_screen() {
        let mut grid = Grid::new(Picture::new(128, 64));
        fill(&mut grid, Rect { x: 0, y: 0, width: 64, height: 64 }, 5, |_, _| 7);
        let (version, changed_at) = (grid.version(), grid.blocks[0].changed_at);
        grid.resize(128, 64);
        assert_eq!((grid.version(), grid.blocks[0].changed_at), (version, changed_at));
        grid.resize(64, 64);
        assert_ne!(grid.version(), version);
        assert_eq!(grid.picture().row(0, 0, 1), [0]);
    }

    #[test]
    fn what_moves_is_told_from_text_that_changes_as_often() {
        let mut grid = Grid::new(Picture::new(128, 64));
        let (film, text) = (At { column: 0, row: 0 }, At { column: 1, row: 0 });
        let rects = [grid.rect(film), grid.rect(text)];
        for turn in 0..6 {
            let now = u64::from(turn) * 40;
            fill(&mut grid, rects[0], now, |x, y| (x * 4 + y * 1000 + turn * 77) & 0xff_ffff);
            fill(&mut grid, rects[1], now, |x, y| if (x + y + turn) % 3 == 0 { 0xff_ffff } else { 0 });
        }
        assert!(grid.block(film).is_motion(220) && !grid.block(text).is_motion(220));
        assert!(!grid.block(film).is_motion(1500), "it stands still");
    }
}
