//! Who reads all that QEMU says one pixel after the other, and has as much time as it takes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use watari_screen::{LARGEST, Picture, Rect};

use super::act::{Place, Shape};

/// What is shown, and what is shared.
pub(super) struct Reader {
    pub(super) picture: Picture,
    shared: Option<Shared>,
    /// How many pixels it has read.
    pub(super) pixels: usize,
}

struct Shared {
    memory: File,
    offset: u64,
    stride: u64,
}

impl Shape {
    /// Whether it is that of a picture.
    pub(super) fn is_fine(&self) -> bool {
        let is_size = |side| (1..=LARGEST).contains(&side);
        let is_format = [0x2002_0888, 0x2002_8888].contains(&self.format);
        is_format && is_size(self.width) && is_size(self.height) && self.stride >= self.width * 4
    }
}

/// Each of these tells whether what QEMU says is taken.
impl Reader {
    pub(super) fn new() -> Reader {
        Reader { picture: Picture::new(640, 480), shared: None, pixels: 0 }
    }

    pub(super) fn scanout(&mut self, shape: Shape, data: &[u8]) -> bool {
        if !shape.is_fine() {
            return false;
        }
        self.begin(shape);
        self.put(self.picture.area(), shape.stride, data);
        true
    }

    pub(super) fn update(&mut self, place: Place, shape: Shape, data: &[u8]) -> bool {
        let Some(rect) = rect(place).filter(|_| shape.is_fine()) else { return false };
        self.put(rect, shape.stride, data);
        true
    }

    pub(super) fn scanout_map(&mut self, memory: File, offset: u32, shape: Shape) -> bool {
        if !shape.is_fine() {
            return false;
        }
        self.begin(shape);
        self.shared = Some(Shared { memory, offset: offset.into(), stride: shape.stride.into() });
        self.read(self.picture.area())
    }

    pub(super) fn update_map(&mut self, place: Place) -> bool {
        rect(place).is_some_and(|rect| self.read(rect))
    }

    pub(super) fn disable(&mut self) {
        self.picture = Picture::new(self.picture.width(), self.picture.height());
        self.pixels += self.picture.width() as usize * self.picture.height() as usize;
    }

    fn begin(&mut self, shape: Shape) {
        if (self.picture.width(), self.picture.height()) != (shape.width, shape.height) {
            self.picture = Picture::new(shape.width, shape.height);
        }
    }

    /// Draws what was sent, as far as there are whole rows of it.
    fn put(&mut self, rect: Rect, stride: u32, data: &[u8]) {
        let Some(rect) = self.picture.clip(rect) else { return };
        for y in 0..rect.height {
            let start = y as usize * stride as usize;
            if let Some(row) = data.get(start..start + rect.width as usize * 4) {
                self.draw(rect.x, rect.y + y, row);
            }
        }
    }

    /// Draws what is in the shared memory, up to the first row that is not there.
    fn read(&mut self, rect: Rect) -> bool {
        let Some(Shared { memory, offset, stride }) = self.shared.take() else { return false };
        let rows = self.picture.clip(rect).map(|rect| (rect, rect.y..rect.y + rect.height));
        let is_read = rows.is_none_or(|(rect, mut rows)| {
            rows.all(|y| {
                let mut row = vec![0; rect.width as usize * 4];
                let at = offset + u64::from(y) * stride + u64::from(rect.x) * 4;
                let read = memory.read_exact_at(&mut row, at);
                read.map(|()| self.draw(rect.x, y, &row)).is_ok()
            })
        });
        self.shared = Some(Shared { memory, offset, stride });
        is_read
    }

    fn draw(&mut self, x: u32, y: u32, row: &[u8]) {
        for (x, pixel) in (x..).zip(row.chunks_exact(4)) {
            self.picture.row_mut(x, y, 1)[0] = u32::from_le_bytes([pixel[0], pixel[1], pixel[2], 0]);
            self.pixels += 1;
        }
    }
}

fn rect(place: Place) -> Option<Rect> {
    let [x, y, width, height] = place.map(|number| u32::try_from(number).ok());
    Some(Rect { x: x?, y: y?, width: width?, height: height? })
}
