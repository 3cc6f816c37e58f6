//! What QEMU draws, until an update is complete: nobody is shown a part of one.

use crate::display::Screen;
use crate::picture::LARGEST;
use crate::{BLOCK, Picture, Rect};

/// A picture, and which of its blocks were drawn on since it was shown.
pub(super) struct Canvas {
    picture: Picture,
    /// Nothing of it was shown yet: it takes the place of another one.
    is_new: bool,
    columns: u32,
    is_touched: Vec<bool>,
}

impl Canvas {
    /// A black one, if a screen can have that size.
    pub(super) fn new(width: u16, height: u16) -> Option<Canvas> {
        let (width, height) = (u32::from(width), u32::from(height));
        if !(1..=LARGEST).contains(&width) || !(1..=LARGEST).contains(&height) {
            return None;
        }
        let (columns, rows) = (width.div_ceil(BLOCK), height.div_ceil(BLOCK));
        let is_touched = vec![false; columns as usize * rows as usize];
        Some(Canvas { picture: Picture::new(width, height), is_new: true, columns, is_touched })
    }

    /// What it is of.
    pub(super) fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Whether nothing of it was shown yet.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Draws one row of pixels, four bytes each, blue first.
    ///
    /// # Panics
    /// If they are not within it.
    pub(super) fn put(&mut self, x: u32, y: u32, bytes: &[u8]) {
        self.picture.put(x, y, bytes);
        let row = (y / BLOCK * self.columns) as usize;
        let end = (x + bytes.len() as u32 / 4).div_ceil(BLOCK);
        self.is_touched[row..][(x / BLOCK) as usize..end as usize].fill(true);
    }

    /// Shows what was drawn. A new one is shown as soon as there is something on it.
    pub(super) fn show(&mut self, screen: &Screen) {
        let rects = self.touched();
        if rects.is_empty() {
            return;
        }
        screen.change(|grid, now| {
            let new = &self.picture;
            if self.is_new {
                grid.resize(new.width(), new.height());
            }
            for rect in rects {
                grid.draw(rect, now, |picture, Rect { x, y, width, height }| {
                    for y in y..y + height {
                        picture.row_mut(x, y, width).copy_from_slice(new.row(x, y, width));
                    }
                });
            }
        });
        self.is_touched.fill(false);
        self.is_new = false;
    }

    /// The blocks that were drawn on, each once: a block that is drawn twice at once would seem to move.
    fn touched(&self) -> Vec<Rect> {
        let rows = (0..).zip(self.is_touched.chunks(self.columns as usize));
        let mut rects = Vec::new();
        for (row, is_touched) in rows {
            let mut column = 0;
            for run in is_touched.chunk_by(|left, right| left == right) {
                let columns = run.len() as u32;
                if run[0] {
                    let (x, y) = (column * BLOCK, row * BLOCK);
                    rects.push(Rect { x, y, width: columns * BLOCK, height: BLOCK });
                }
                column += columns;
            }
        }
        rects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_that_were_drawn_on_are_shown_once_and_at_once() {
        let screen = Screen::new();
        let mut canvas = Canvas::new(200, 130).unwrap();
        canvas.show(&screen);
        assert_eq!(screen.see(|grid| grid.picture().area()), Picture::new(640, 480).area());

        canvas.put(60, 1, &[1; 10 * 4]);
        canvas.put(199, 129, &[2; 4]);
        canvas.put(199, 128, &[2; 4]);
        let rect = |x, y, width| Rect { x, y, width, height: 64 };
        assert_eq!(canvas.touched(), [rect(0, 0, 128), rect(192, 128, 64)]);
        assert_eq!(screen.see(|grid| grid.picture().area()), Picture::new(640, 480).area());
        canvas.show(&screen);
        assert_eq!(screen.see(|grid| grid.picture().clone()), canvas.picture);
        assert_eq!(canvas.touched(), []);
    }

    #[test]
    fn no_canvas_is_larger_than_a_screen() {
        assert!(Canvas::new(1, LARGEST as u16).is_some());
        for (width, height) in [(0, 1), (1, 0), (LARGEST as u16 + 1, 1), (1, u16::MAX)] {
            assert!(Canvas::new(width, height).is_none());
        }
    }
}
