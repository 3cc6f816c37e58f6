//! What is on a screen.

/// No screen is wider or higher, in pixels.
pub const LARGEST: u32 = 8192;

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// How wide.
    pub width: u32,
    /// How high.
    pub height: u32,
}

/// All pixels of a screen, row by row from the top left: `0x00RRGGBB` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

impl Picture {
    /// A black one. At least one pixel, and at most [`LARGEST`] each way: other sizes are brought into these bounds.
    pub fn new(width: u32, height: u32) -> Picture {
        let (width, height) = (width.clamp(1, LARGEST), height.clamp(1, LARGEST));
        Picture { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    /// How wide it is, in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// How high it is, in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All of it.
    pub fn area(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// The part of `rect` that is within it, if any is.
    pub fn clip(&self, rect: Rect) -> Option<Rect> {
        let right = rect.x.saturating_add(rect.width).min(self.width);
        let bottom = rect.y.saturating_add(rect.height).min(self.height);
        let found = Rect { width: right.checked_sub(rect.x)?, height: bottom.checked_sub(rect.y)?, ..rect };
        (found.width > 0 && found.height > 0).then_some(found)
    }

    /// Pixels of one row, from `x` on.
    ///
    /// # Panics
    /// If they are not within it.
    pub fn row(&self, x: u32, y: u32, width: u32) -> &[u32] {
        &self.pixels[self.span(x, y, width)]
    }

    /// The same, to be changed. What is beyond the lowest 24 bits of a pixel must be zero.
    ///
    /// # Panics
    /// If they are not within it.
    pub fn row_mut(&mut self, x: u32, y: u32, width: u32) -> &mut [u32] {
        let span = self.span(x, y, width);
        &mut self.pixels[span]
    }

    /// Sets pixels of one row, from `x` on, to what QEMU has of them: four bytes each, blue first.
    ///
    /// # Panics
    /// If they are not within it.
    pub(crate) fn put(&mut self, x: u32, y: u32, bytes: &[u8]) {
        let pixels = bytes.as_chunks::<4>().0;
        for (pixel, bytes) in self.row_mut(x, y, pixels.len() as u32).iter_mut().zip(pixels) {
            *pixel = u32::from_le_bytes(*bytes) & 0xff_ffff;
        }
    }

    /// Moves rows of pixels within it: `to` has then what was `down` rows above it (below it, where that is negative).
    ///
    /// # Panics
    /// If either is not within it.
    pub fn copy_rows(&mut self, to: Rect, down: i32) {
        let copy = |picture: &mut Picture, y: u32| {
            let from = picture.span(to.x, y.checked_add_signed(-down).unwrap_or(u32::MAX), to.width);
            let start = picture.span(to.x, y, to.width).start;
            picture.pixels.copy_within(from, start);
        };
        match down > 0 {
            true => (to.y..to.y + to.height).rev().for_each(|y| copy(self, y)),
            false => (to.y..to.y + to.height).for_each(|y| copy(self, y)),
        }
    }

    fn span(&self, x: u32, y: u32, width: u32) -> std::ops::Range<usize> {
        assert!(
            y < self.height && x.checked_add(width).is_some_and(|end| end <= self.width),
            "within the picture"
        );
        let start = y as usize * self.width as usize + x as usize;
        start..start + width as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_edges_is_cut_off() {
        let picture = Picture::new(100, 50);
        let rect = |x, y, width, height| Rect { x, y, width, height };
        assert_eq!(picture.clip(rect(90, 40, 20, 20)), Some(rect(90, 40, 10, 10)));
        assert_eq!(picture.clip(rect(0, 0, u32::MAX, u32::MAX)), Some(picture.area()));
        for nothing in
            [rect(100, 0, 1, 1), rect(0, 50, 1, 1), rect(5, 5, 0, 3), rect(u32::MAX, 0, u32::MAX, 1)]
        {
            assert_eq!(picture.clip(nothing), None);
        }
        assert_eq!(Picture::new(0, u32::MAX).area(), rect(0, 0, 1, LARGEST));
    }

    #[test]
    fn rows_are_moved_over_themselves_either_way() {
        for down in [-3_i32, 3] {
            let mut picture = Picture::new(4, 10);
            for y in 0..10 {
                picture.row_mut(0, y, 4).fill(y);
            }
            let y = if down > 0 { 3 } else { 0 };
            picture.copy_rows(Rect { x: 1, y, width: 2, height: 7 }, down);
            for at in 0..10 {
                let moved = if (y..y + 7).contains(&at) { at.checked_add_signed(-down).unwrap() } else { at };
                assert_eq!(picture.row(0, at, 4), [at, moved, moved, at]);
            }
        }
    }
}
