//! What a viewer was sent of a screen on which things happen, and what it shows in the end.

use watari_screen::{Grid, Picture, Rect, Studio, Viewer};

use super::Pixels;
use crate::lab::chance::Chance;

/// A screen's updates.
pub struct Recording {
    pub updates: Vec<Vec<u8>>,
    pub end: Pixels,
}

const WIDTH: u32 = 500;
const HEIGHT: u32 = 300;
/// Some time after the last change everything is exact.
const LONGEST_MS: u64 = 60_000;

impl Recording {
    pub fn new(chance: &mut Chance) -> Recording {
        let mut grid = Grid::new(Picture::new(WIDTH, HEIGHT));
        let (studio, mut viewer, mut updates, mut now) =
            (Studio::default(), Viewer::default(), Vec::new(), 0);
        let mut send = |viewer: &mut Viewer, grid: &Grid, now| {
            if let Some((number, plan)) = viewer.next(grid, now) {
                let update = studio.prepare(number, grid, plan).message().unwrap();
                viewer.sent(update.len() as u64);
                viewer.acknowledge(number, now);
                updates.push(update);
            }
        };
        for _ in 0..30 {
            happen(&mut grid, chance, now);
            send(&mut viewer, &grid, now);
            now += chance.below(200);
        }
        // Then nothing does, until all of it is exact.
        let last = now;
        while viewer.due(&grid).is_some() {
            assert!(now - last < LONGEST_MS, "never exact");
            now += 20;
            send(&mut viewer, &grid, now);
        }
        assert!(viewer.is_exact(&grid));
        Recording { updates, end: pixels(grid.picture()) }
    }
}

/// Something is drawn: one colour, text, a photograph; or what is there moves.
fn happen(grid: &mut Grid, chance: &mut Chance, now: u64) {
    let (x, y) = (chance.below(WIDTH.into()) as u32, chance.below(HEIGHT.into()) as u32);
    let rect = Rect { x, y, width: 1 + chance.below(300) as u32, height: 1 + chance.below(200) as u32 };
    let (kind, number) = (chance.below(4), chance.below(1 << 24) as u32);
    grid.draw(rect, now, |picture, rect| {
        if kind == 3 {
            let up = (number % rect.height).min(40);
            let height = rect.height - up;
            picture.copy_rows(Rect { height, ..rect }, -(up as i32));
            return;
        }
        for y in rect.y..rect.y + rect.height {
            for (x, pixel) in (rect.x..).zip(picture.row_mut(rect.x, y, rect.width)) {
                *pixel = match kind {
                    0 => number,
                    1 if ((x / 2) ^ y).wrapping_mul(number | 1).is_multiple_of(3) => 0xe0_e0e0,
                    1 => 0x10_1020,
                    _ => u32::from_be_bytes([0, (x * 3 + number) as u8, (y * 2) as u8, (x ^ y) as u8]),
                };
            }
        }
    });
}

fn pixels(picture: &Picture) -> Pixels {
    let rows = (0..HEIGHT).flat_map(|y| picture.row(0, y, WIDTH).to_vec());
    let bytes = rows.flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    Pixels { width: WIDTH, height: HEIGHT, bytes }
}
