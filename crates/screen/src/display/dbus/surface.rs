//! The memory that QEMU shows a guest's picture in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::picture::LARGEST;
use crate::{Picture, Rect};

/// `PIXMAN_x8r8g8b8` and `PIXMAN_a8r8g8b8`: four bytes, blue first. QEMU has all displays in the first of them unless they ask for
/// another.
const FORMATS: [u32; 2] = [0x2002_0888, 0x2002_8888];
const PIXEL_BYTES: u64 = 4;

/// How a picture lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    /// From one row to the next, in bytes.
    stride: u64,
}

impl Layout {
    /// What QEMU says of one, if we can read that.
    pub(super) fn new(width: u32, height: u32, stride: u32, format: u32) -> Option<Layout> {
        let stride = u64::from(stride);
        let is_fine = FORMATS.contains(&format)
            && (1..=LARGEST).contains(&width)
            && (1..=LARGEST).contains(&height)
            && stride >= u64::from(width) * PIXEL_BYTES;
        is_fine.then_some(Layout { width, height, stride })
    }
}

/// A picture that is shared with QEMU. It is read as a file: what QEMU changes or takes away meanwhile makes pixels old or
/// reading fail, and nothing worse.
pub(super) struct Surface {
    memory: File,
    offset: u64,
    layout: Layout,
}

impl Surface {
    pub(super) fn new(memory: File, offset: u64, layout: Layout) -> Surface {
        Surface { memory, offset, layout }
    }

    /// Copies what it has within `rect`, which is within the picture.
    pub(super) fn read_into(&self, picture: &mut Picture, rect: Rect) -> io::Result<()> {
        let mut bytes = vec![0; (u64::from(rect.width) * PIXEL_BYTES) as usize];
        for y in rect.y..rect.y + rect.height {
            let at = self.offset + u64::from(y) * self.layout.stride + u64::from(rect.x) * PIXEL_BYTES;
            self.memory.read_exact_at(&mut bytes, at)?;
            picture.put(rect.x, y, &bytes);
        }
        Ok(())
    }
}

/// Copies a picture that was sent, of which the first pixel belongs at the top left of `rect`; as far as there is anything.
pub(super) fn copy(picture: &mut Picture, rect: Rect, layout: &Layout, bytes: &[u8]) {
    for (y, row) in (rect.y..rect.y + rect.height).zip(bytes.chunks(layout.stride as usize)) {
        let wanted = (u64::from(rect.width) * PIXEL_BYTES) as usize;
        if let Some(row) = row.get(..wanted) {
            picture.put(rect.x, y, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_can_be_read_is_a_layout() {
        assert!(Layout::new(640, 480, 2560, FORMATS[0]).is_some());
        assert!(Layout::new(640, 480, 2560, FORMATS[1]).is_some());
        for (width, height, stride, format) in [
            (640, 480, 2559, FORMATS[0]),
            (640, 480, 2560, 0),
            (0, 480, 2560, FORMATS[0]),
            (640, LARGEST + 1, 2560, FORMATS[0]),
            (u32::MAX, 1, u32::MAX, FORMATS[0]),
        ] {
            assert!(Layout::new(width, height, stride, format).is_none());
        }
    }

    #[test]
    fn memory_that_is_shorter_than_was_said_is_an_error() {
        let mut memory = tempfile::tempfile().unwrap();
        memory.write_all(&[7; 16 + 40 * 3]).unwrap();
        let layout = Layout::new(10, 4, 40, FORMATS[0]).unwrap();
        let (surface, mut picture) =
            (Surface::new(memory, 16, layout), Picture::new(layout.width, layout.height));
        let rect = |height| Rect { x: 2, y: 0, width: 8, height };
        surface.read_into(&mut picture, rect(3)).unwrap();
        assert_eq!((picture.row(0, 2, 3), picture.row(2, 3, 1)), (&[0, 0, 0x07_0707][..], &[0][..]));
        assert!(surface.read_into(&mut picture, rect(4)).is_err());
    }

    #[test]
    fn a_picture_that_is_cut_short_is_drawn_as_far_as_it_goes() {
        let layout = Layout::new(3, 2, 12, FORMATS[0]).unwrap();
        let mut picture = Picture::new(layout.width, layout.height);
        let area = picture.area();
        copy(&mut picture, area, &layout, &[9; 12 + 5]);
        assert_eq!((picture.row(0, 0, 3), picture.row(0, 1, 3)), (&[0x09_0909; 3][..], &[0; 3][..]));
    }
}
