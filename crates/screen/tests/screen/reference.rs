//! A viewer of what docs/SCREEN.md specifies. Any message that is not as it says ends the test.

use png::Transformations;
use watari_screen::{BLOCK, Picture, Rect, SLOTS};

/// A viewer's screen, and the blocks that it keeps.
pub(crate) struct Screen {
    picture: Picture,
    kept: Vec<Vec<u32>>,
}

impl Default for Screen {
    fn default() -> Screen {
        Screen { picture: Picture::new(1, 1), kept: vec![Vec::new(); usize::from(SLOTS)] }
    }
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u32 {
        u32::from(self.take(1)[0])
    }

    fn u16(&mut self) -> u32 {
        u32::from(u16::from_le_bytes(self.take(2).try_into().unwrap()))
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }
}

/// An atlas, of which one block after the other is taken.
struct Atlas {
    width: u32,
    pixels: Vec<u32>,
    taken: u32,
}

impl Atlas {
    fn next(&mut self, width: u32, height: u32) -> Vec<u32> {
        let across = self.width / BLOCK;
        let (left, top) = (self.taken % across * BLOCK, self.taken / across * BLOCK);
        self.taken += 1;
        let row = |y: u32| {
            let start = ((top + y) * self.width + left) as usize;
            &self.pixels[start..start + width as usize]
        };
        (0..height).flat_map(row).copied().collect()
    }
}

fn pixels(rgb: &[u8]) -> Vec<u32> {
    rgb.as_chunks::<3>().0.iter().map(|[r, g, b]| u32::from_be_bytes([0, *r, *g, *b])).collect()
}

fn png(bytes: &[u8]) -> Atlas {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    Atlas { width: info.width, pixels: pixels(&rgb), taken: 0 }
}

fn jpeg(bytes: &[u8]) -> Atlas {
    let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(bytes));
    let rgb = decoder.decode().unwrap();
    let width = decoder.info().unwrap().width;
    Atlas { width: width.into(), pixels: pixels(&rgb), taken: 0 }
}

impl Screen {
    /// Does what an update says.
    pub(crate) fn show(&mut self, message: &[u8]) {
        let mut bytes = Bytes(message);
        assert_eq!(bytes.u8(), 1, "an update");
        let begins = bytes.u8() & 1 != 0;
        let (width, height) = (bytes.u16(), bytes.u16());
        let _number = bytes.u32();
        let (count, exact, rough) = (bytes.u32(), bytes.u32() as usize, bytes.u32() as usize);
        if begins {
            *self = Screen { picture: Picture::new(width, height), ..Screen::default() };
        }
        let (ops, atlases) = bytes.0.split_at(bytes.0.len() - exact - rough);
        let (exact, rough) = atlases.split_at(exact);
        let mut exact = (!exact.is_empty()).then(|| png(exact));
        let mut rough = (!rough.is_empty()).then(|| jpeg(rough));
        let (mut ops, before) = (Bytes(ops), self.picture.clone());
        for _ in 0..count {
            self.step(&mut ops, &before, exact.as_mut(), rough.as_mut());
        }
        assert!(ops.0.is_empty());
    }

    fn step(
        &mut self,
        ops: &mut Bytes,
        before: &Picture,
        exact: Option<&mut Atlas>,
        rough: Option<&mut Atlas>,
    ) {
        match ops.u8() {
            0 => {
                let (column, columns, y, height) = (ops.u8(), ops.u8(), ops.u16(), ops.u16());
                let down = ops.u16() as u16 as i16;
                let to = Rect { x: column * BLOCK, y, width: columns * BLOCK, height };
                let to = self.picture.clip(to).unwrap();
                assert_eq!(to.height, height);
                for y in (to.y..to.y + to.height).map(|y| y.checked_add_signed(-i32::from(down)).unwrap()) {
                    let row = |picture: &Picture| picture.row(to.x, y, to.width).to_vec();
                    assert_eq!(row(&self.picture), row(before), "written before it is read");
                }
                self.picture.copy_rows(to, down.into());
            }
            1 => {
                let (column, row, count) = (ops.u8(), ops.u8(), ops.u8());
                let colour = u32::from_be_bytes([0, ops.u8() as u8, ops.u8() as u8, ops.u8() as u8]);
                for column in column..column + count {
                    let rect = self.block(column, row);
                    self.put(rect, &vec![colour; (rect.width * rect.height) as usize]);
                }
            }
            2 => {
                let (rect, slot) = (self.block(ops.u8(), ops.u8()), ops.u16() as usize);
                let kept = self.kept[slot].clone();
                self.put(rect, &kept);
            }
            3 => {
                let (rect, slot) = (self.block(ops.u8(), ops.u8()), ops.u16() as usize);
                self.kept[slot] = exact.unwrap().next(rect.width, rect.height);
                let kept = self.kept[slot].clone();
                self.put(rect, &kept);
            }
            4 => {
                let rect = self.block(ops.u8(), ops.u8());
                let pixels = rough.unwrap().next(rect.width, rect.height);
                self.put(rect, &pixels);
            }
            other => panic!("there is no step {other}"),
        }
    }

    fn block(&self, column: u32, row: u32) -> Rect {
        let rect = Rect { x: column * BLOCK, y: row * BLOCK, width: BLOCK, height: BLOCK };
        self.picture.clip(rect).unwrap()
    }

    fn put(&mut self, rect: Rect, pixels: &[u32]) {
        assert_eq!(pixels.len(), (rect.width * rect.height) as usize);
        for (y, row) in (rect.y..).zip(pixels.chunks_exact(rect.width as usize)) {
            self.picture.row_mut(rect.x, y, rect.width).copy_from_slice(row);
        }
    }

    /// Every pixel of it is right.
    pub(crate) fn assert_shows(&self, picture: &Picture) {
        assert_eq!(self.picture.area(), picture.area());
        self.assert_shows_within(picture, picture.area());
    }

    /// Every pixel of a part of it is right.
    pub(crate) fn assert_shows_within(&self, picture: &Picture, rect: Rect) {
        for y in rect.y..rect.y + rect.height {
            let (shown, wanted) =
                (self.picture.row(rect.x, y, rect.width), picture.row(rect.x, y, rect.width));
            assert!(shown == wanted, "row {y} is wrong");
        }
    }
}
