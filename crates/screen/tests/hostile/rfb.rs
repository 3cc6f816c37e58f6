//! What may be QEMU's VNC server. An input is all that it says before it hangs up; what is shown then ([`expect`]) are all updates that
//! are complete, up to the first thing that is wrong.

use std::io::Write;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt;
use watari_screen::{Display, LARGEST, Picture};

use super::{MOST_PIXELS, Said, last, withstand};

pub(super) fn face(input: &[u8]) {
    let Some(expected) = expect(input) else { return };
    match (expected, withstand(shown(input))) {
        (Some(expected), Some(shown)) => assert!(expected == shown, "another picture is shown"),
        (expected, shown) => assert_eq!(expected.is_some(), shown.is_some(), "whether it is a display"),
    }
}

/// What a display shows in the end to which a server says this; nothing if it is none.
async fn shown(input: &[u8]) -> Option<Picture> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // A socket holds as much.
    theirs.write_all(input).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
    let answers = tokio::spawn(async move { theirs.read_to_end(&mut Vec::new()).await });
    let display = Display::vnc(ours).await.ok();
    let picture = match &display {
        Some(display) => Some(last(display).await),
        None => None,
    };
    drop(display);
    answers.await.unwrap().unwrap();
    picture
}

fn text(said: &mut Said) -> Option<()> {
    let length = said.number(4)?;
    said.take(length).filter(|_| length <= 1 << 20).map(drop)
}

/// What is known of a server after what it has said.
struct Model {
    canvas: Picture,
    /// Something was drawn that is not shown yet.
    is_drawn: bool,
    /// The pixels of all screens so far.
    pixels: usize,
}

/// What is shown in the end: nothing if it is no display. Nothing at all if it would take long.
fn expect(input: &[u8]) -> Option<Option<Picture>> {
    let mut said = Said(input);
    let Some(canvas) = greet(&mut said) else { return Some(None) };
    let pixels = canvas.width() as usize * canvas.height() as usize;
    let mut model = Model { canvas, is_drawn: false, pixels };
    let mut shown = Picture::new(640, 480);
    loop {
        let heard = model.hear(&mut said);
        if model.pixels > MOST_PIXELS {
            return None;
        }
        if heard.is_none() {
            return Some(Some(shown));
        }
        if model.is_drawn {
            shown = model.canvas.clone();
            model.is_drawn = false;
        }
    }
}

fn greet(said: &mut Said) -> Option<Picture> {
    said.take(12).filter(|version| version == b"RFB 003.008\n")?;
    let kinds = said.number(1)?;
    said.take(kinds)?.contains(&1).then_some(())?;
    (said.number(4)? == 0).then_some(())?;
    let screen = screen(said.number(2)?, said.number(2)?)?;
    said.take(16)?;
    text(said)?;
    Some(screen)
}

fn screen(width: usize, height: usize) -> Option<Picture> {
    let sides = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let is_fine = sides.iter().all(|side| (1..=LARGEST).contains(side));
    is_fine.then(|| Picture::new(sides[0], sides[1]))
}

impl Model {
    fn hear(&mut self, said: &mut Said) -> Option<()> {
        match said.number(1)? {
            0 => {
                said.take(1)?;
                (0..said.number(2)?).try_for_each(|_| self.rectangle(said))
            }
            2 => Some(()),
            3 => {
                said.take(3)?;
                text(said)
            }
            _ => None,
        }
    }

    fn rectangle(&mut self, said: &mut Said) -> Option<()> {
        let [x, y, width, height] = [said.number(2)?, said.number(2)?, said.number(2)?, said.number(2)?];
        match said.number(4)? as u32 as i32 {
            0 => {
                let is_within =
                    x + width <= self.canvas.width() as usize && y + height <= self.canvas.height() as usize;
                is_within.then_some(())?;
                for y in y..y + height {
                    for x in x..x + width {
                        let colour = said.take(4)?;
                        let pixel = [colour[0], colour[1], colour[2], 0];
                        self.canvas.row_mut(x as u32, y as u32, 1)[0] = u32::from_le_bytes(pixel);
                        self.is_drawn = true;
                    }
                }
            }
            -223 => {
                self.pixels += width * height;
                self.canvas = screen(width, height)?;
                self.is_drawn = false;
            }
            -258 => {}
            _ => return None,
        }
        Some(())
    }
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begun = [greeting(70, 20), update(&[rectangle([0, 0, 70, 20], -258, &[])])].concat();
    let whole = update(&[rectangle([0, 0, 70, 20], 0, &noise(70 * 20))]);
    let parts = [rectangle([60, 0, 8, 3], 0, &noise(24)), rectangle([69, 19, 1, 1], 0, &noise(1))];
    let smaller = update(&[rectangle([0, 0, 20, 70], -223, &[])]);
    let then = update(&[rectangle([0, 60, 20, 10], 0, &noise(200))]);
    let other = vec![2, 3, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'];
    vec![
        ("nothing", Vec::new()),
        ("a-greeting", begun.clone()),
        ("a-machine", [begun.clone(), whole, update(&parts), smaller, then].concat()),
        ("a-bell-and-a-text", [begun.clone(), other, update(&parts)].concat()),
        ("outside", [begun, update(&[rectangle([69, 19, 2, 1], 0, &noise(2))])].concat()),
    ]
}

fn greeting(width: u16, height: u16) -> Vec<u8> {
    let mut said = b"RFB 003.008\n".to_vec();
    said.extend([1, 1, 0, 0, 0, 0]);
    said.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    said.extend([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    said.extend([0, 0, 0, 4]);
    said.extend(b"QEMU");
    said
}

fn update(rectangles: &[Vec<u8>]) -> Vec<u8> {
    [vec![0, 0, 0, rectangles.len() as u8], rectangles.concat()].concat()
}

fn rectangle(place: [u16; 4], encoding: i32, payload: &[u8]) -> Vec<u8> {
    [&place.map(u16::to_be_bytes).concat(), &encoding.to_be_bytes()[..], payload].concat()
}

fn noise(pixels: u32) -> Vec<u8> {
    (0..pixels).flat_map(|pixel| (pixel.wrapping_mul(0x9e37_79b1)).to_le_bytes()).collect()
}
