//! What QEMU says over VNC: [RFB 3.8](https://www.rfc-editor.org/rfc/rfc6143) and
//! [extensions](https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst) of it, read as it comes and drawn on a canvas.
//!
//! Nothing that it announces is believed: sizes and lengths have limits, a picture is read row by row, and what was not asked for
//! is an error.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Error;
use super::canvas::Canvas;
use crate::Rect;

const VERSION: [u8; 12] = *b"RFB 003.008\n";
const NO_SECURITY: u8 = 1;
/// Names and texts are not longer, in bytes. Nobody reads them.
const LONGEST: u32 = 1 << 20;

const RAW: i32 = 0;
const DESKTOP_SIZE: i32 = -223;
/// That keys may be said by their place, as [`nudge`] does.
const KEYS: i32 = -258;

/// Greets, says in what form pictures are wanted, and returns a canvas for them.
pub(super) async fn greet(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Canvas, Error> {
    let mut version = [0; VERSION.len()];
    from.read_exact(&mut version).await?;
    if version != VERSION {
        return Err(Error::Version);
    }
    to.write_all(&VERSION).await?;

    let mut kinds = vec![0; usize::from(from.read_u8().await?)];
    from.read_exact(&mut kinds).await?;
    if !kinds.contains(&NO_SECURITY) {
        return Err(Error::Secured);
    }
    to.write_all(&[NO_SECURITY]).await?;
    if from.read_u32().await? != 0 {
        return Err(Error::Refused);
    }

    const SHARED: u8 = 1;
    to.write_all(&[SHARED]).await?;
    let canvas = canvas(from.read_u16().await?, from.read_u16().await?)?;
    skip(from, PIXELS.len() as u32).await?;
    let name = from.read_u32().await?;
    skip(from, name).await?;

    to.write_all(&form()).await?;
    Ok(canvas)
}

/// Four bytes a pixel, blue first: what QEMU has itself. Bits, bits that count, whether the highest byte is first, whether these are
/// colours; the most that red, green and blue can be, and by how many bits they are shifted; nothing.
const PIXELS: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

/// That pictures are to be sent like that, without compression.
fn form() -> Vec<u8> {
    const SET_PIXEL_FORMAT: u8 = 0;
    const SET_ENCODINGS: u8 = 2;
    let encodings = [RAW, DESKTOP_SIZE, KEYS];
    let mut message = vec![SET_PIXEL_FORMAT, 0, 0, 0];
    message.extend(PIXELS);
    message.extend([SET_ENCODINGS, 0, 0, encodings.len() as u8]);
    message.extend(encodings.iter().flat_map(|encoding| encoding.to_be_bytes()));
    message
}

/// Asks for the next update: all of the picture, or what has changed when something has.
pub(super) fn request(canvas: &Canvas, is_all: bool) -> Vec<u8> {
    const REQUEST: u8 = 3;
    let Rect { width, height, .. } = canvas.picture().area();
    let mut message = vec![REQUEST, u8::from(!is_all), 0, 0, 0, 0];
    message.extend((width as u16).to_be_bytes());
    message.extend((height as u16).to_be_bytes());
    message
}

/// Has QEMU look at once, and often, at what the guest shows, and does nothing to the guest: what QEMU takes as input sets its
/// timer back, and it lets go of no key that is not held. That is QEMU's own message, of the key with the number 0.
pub(super) fn nudge() -> [u8; 12] {
    const QEMU: u8 = 255;
    const KEY: u8 = 0;
    [QEMU, KEY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Hears one message, and draws what it says.
pub(super) async fn hear(from: &mut (impl AsyncRead + Unpin), canvas: &mut Canvas) -> Result<(), Error> {
    const UPDATE: u8 = 0;
    const BELL: u8 = 2;
    const TEXT: u8 = 3;
    match from.read_u8().await? {
        UPDATE => {
            skip(from, 1).await?;
            for _ in 0..from.read_u16().await? {
                rectangle(from, canvas).await?;
            }
        }
        BELL => {}
        TEXT => {
            skip(from, 3).await?;
            let length = from.read_u32().await?;
            skip(from, length).await?;
        }
        kind => return Err(Error::Message(kind)),
    }
    Ok(())
}

async fn rectangle(from: &mut (impl AsyncRead + Unpin), canvas: &mut Canvas) -> Result<(), Error> {
    let (x, y) = (from.read_u16().await?, from.read_u16().await?);
    let (width, height) = (from.read_u16().await?, from.read_u16().await?);
    match from.read_i32().await? {
        RAW => {
            let rect = Rect { x: x.into(), y: y.into(), width: width.into(), height: height.into() };
            pixels(from, canvas, rect).await?;
        }
        DESKTOP_SIZE => *canvas = self::canvas(width, height)?,
        KEYS => {}
        encoding => return Err(Error::Encoding(encoding)),
    }
    Ok(())
}

async fn pixels(from: &mut (impl AsyncRead + Unpin), canvas: &mut Canvas, rect: Rect) -> Result<(), Error> {
    let Rect { x, y, width, height } = rect;
    let Rect { width: right, height: bottom, .. } = canvas.picture().area();
    if x + width > right || y + height > bottom {
        return Err(Error::Outside(rect));
    }
    if width == 0 {
        return Ok(());
    }
    let mut row = vec![0; width as usize * 4];
    for y in y..y + height {
        from.read_exact(&mut row).await?;
        canvas.put(x, y, &row);
    }
    Ok(())
}

fn canvas(width: u16, height: u16) -> Result<Canvas, Error> {
    Canvas::new(width, height).ok_or(Error::Size { width, height })
}

async fn skip(from: &mut (impl AsyncRead + Unpin), bytes: u32) -> Result<(), Error> {
    if bytes > LONGEST {
        return Err(Error::TooLong(bytes));
    }
    let mut rest = bytes as usize;
    let mut nothing = [0; 256];
    while rest > 0 {
        let some = rest.min(nothing.len());
        rest -= from.read_exact(&mut nothing[..some]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::LARGEST;

    /// What a server says at first, of a screen that has this size.
    fn greeting(width: u16, height: u16) -> Vec<u8> {
        let mut said = VERSION.to_vec();
        said.extend([2, 16, NO_SECURITY, 0, 0, 0, 0]);
        said.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        said.extend([7; PIXELS.len()]);
        said.extend([0, 0, 0, 2, b'h', b'i']);
        said
    }

    fn rectangle(x: u16, y: u16, width: u16, height: u16, encoding: i32) -> Vec<u8> {
        let place = [x, y, width, height].map(u16::to_be_bytes).concat();
        [place, encoding.to_be_bytes().to_vec()].concat()
    }

    fn update(rectangles: &[Vec<u8>]) -> Vec<u8> {
        let count = rectangles.len() as u16;
        [vec![0, 0], count.to_be_bytes().to_vec(), rectangles.concat()].concat()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn greeted(mut said: &[u8]) -> Result<(Canvas, Vec<u8>), Error> {
        let mut answers = Vec::new();
        let canvas = run(greet(&mut said, &mut answers))?;
        assert_eq!(said, []);
        Ok((canvas, answers))
    }

    /// What is on a screen of 100 × 70 pixels after one message.
    fn heard(mut said: &[u8]) -> Result<Canvas, Error> {
        let mut canvas = Canvas::new(100, 70).unwrap();
        run(hear(&mut said, &mut canvas))?;
        assert_eq!(said, []);
        Ok(canvas)
    }

    #[test]
    fn a_server_is_greeted_and_told_what_is_wanted() {
        let (canvas, answers) = greeted(&greeting(100, 70)).unwrap();
        assert_eq!(canvas.picture().area(), Rect { x: 0, y: 0, width: 100, height: 70 });
        let wanted = [
            &b"RFB 003.008\n"[..],
            &[1, 1],
            &[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
            &[2, 0, 0, 3, 0, 0, 0, 0, 255, 255, 255, 33, 255, 255, 254, 254],
        ];
        assert_eq!(answers, wanted.concat());
        assert_eq!(nudge()[..8], [255, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request(&canvas, true), [3, 0, 0, 0, 0, 0, 0, 100, 0, 70]);
        assert_eq!(request(&canvas, false), [3, 1, 0, 0, 0, 0, 0, 100, 0, 70]);
    }

    #[test]
    fn who_does_not_greet_like_qemu_is_not_listened_to() {
        let said = greeting(100, 70);
        for end in 0..said.len() {
            assert!(matches!(greeted(&said[..end]), Err(Error::Io(_))), "{end}");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut said = said.clone();
            said[at..][..bytes.len()].copy_from_slice(bytes);
            greeted(&said).map(drop).unwrap_err()
        };
        assert!(matches!(with(10, b"3"), Error::Version));
        assert!(matches!(with(14, &[2]), Error::Secured));
        assert!(matches!(with(12, &[0]), Error::Secured));
        assert!(matches!(with(18, &[1]), Error::Refused));
        assert!(matches!(with(19, &[0, 0]), Error::Size { width: 0, height: 70 }));
        assert!(matches!(with(21, &[255, 255]), Error::Size { width: 100, height: 65535 }));
        assert!(matches!(with(39, &[255; 4]), Error::TooLong(u32::MAX)));
        assert!(greeted(&greeting(LARGEST as u16, 1)).is_ok());
    }

    #[test]
    fn pixels_are_drawn_where_they_belong() {
        let pixels = [3, 2, 1, 99, 6, 5, 4, 0].to_vec();
        let one = [rectangle(98, 69, 2, 1, RAW), pixels.clone()].concat();
        let two = [rectangle(0, 0, 1, 2, RAW), pixels].concat();
        let nothing = rectangle(100, 70, 0, 0, RAW);
        let canvas = heard(&update(&[one, two, nothing])).unwrap();
        assert_eq!(canvas.picture().row(98, 69, 2), [0x01_0203, 0x04_0506]);
        assert_eq!(
            [canvas.picture().row(0, 0, 1), canvas.picture().row(0, 1, 1)],
            [[0x01_0203], [0x04_0506]]
        );
    }

    #[test]
    fn what_is_said_besides_is_heard() {
        let size = |canvas: Canvas| (canvas.picture().width(), canvas.picture().height());
        assert_eq!(size(heard(&update(&[rectangle(0, 0, 9, 9, KEYS)])).unwrap()), (100, 70));
        assert_eq!(size(heard(&update(&[rectangle(0, 0, 5, 6, DESKTOP_SIZE)])).unwrap()), (5, 6));
        heard(&[2]).unwrap();
        heard(&[3, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']).unwrap();
    }

    #[test]
    fn what_was_not_asked_for_is_an_error() {
        let error = |rectangle| heard(&update(&[rectangle])).map(drop).unwrap_err();
        for (x, y, width, height) in [(99, 0, 2, 1), (0, 69, 1, 2), (65535, 0, 65535, 1), (101, 0, 0, 0)] {
            let outside = error(rectangle(x, y, width, height, RAW));
            assert!(matches!(outside, Error::Outside(_)), "{outside}");
        }
        for encoding in [1, 5, 16, -224, -239, -257, -308, i32::MIN] {
            assert!(matches!(error(rectangle(0, 0, 1, 1, encoding)), Error::Encoding(e) if e == encoding));
        }
        assert!(matches!(error(rectangle(0, 0, 0, 9, DESKTOP_SIZE)), Error::Size { width: 0, height: 9 }));
        assert!(matches!(error(rectangle(0, 0, 9, 8193, DESKTOP_SIZE)), Error::Size { .. }));
        assert!(matches!(heard(&[1, 0, 0, 0, 0, 0]), Err(Error::Message(1))));
        // The length of a text in another form is negative.
        for length in [LONGEST + 1, -4_i32 as u32, u32::MAX] {
            let said = [vec![3, 0, 0, 0], length.to_be_bytes().to_vec()].concat();
            assert!(matches!(heard(&said), Err(Error::TooLong(found)) if found == length));
        }
    }

    #[test]
    fn a_message_that_is_cut_short_is_an_error() {
        let pixels = [rectangle(1, 1, 3, 2, RAW), vec![1; 3 * 2 * 4]].concat();
        let said = update(&[pixels, rectangle(0, 0, 1, 1, KEYS), rectangle(0, 0, 5, 6, DESKTOP_SIZE)]);
        heard(&said).unwrap();
        for end in 0..said.len() {
            assert!(matches!(heard(&said[..end]), Err(Error::Io(_))), "{end}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_nobody_panics(said in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..4) {
            let mut canvas = Canvas::new(100, 70).unwrap();
            let said = [vec![kind], said].concat();
            let mut rest = said.as_slice();
            run(async { while hear(&mut rest, &mut canvas).await.is_ok() {} });
            let _ = run(greet(&mut said.as_slice(), &mut Vec::new()));
        }

        #[test]
        fn rectangles_of_any_place_and_size_are_drawn_or_are_errors(
            place in any::<[u16; 4]>(),
            small in any::<[u8; 4]>(),
            encoding in proptest::sample::select(vec![RAW, DESKTOP_SIZE, KEYS, 1, -1]),
        ) {
            for [x, y, width, height] in [place, small.map(u16::from)] {
                let said = [update(&[rectangle(x, y, width, height, encoding)]), vec![9; 70 * 100 * 4]].concat();
                let mut canvas = Canvas::new(100, 70).unwrap();
                let is_heard = run(hear(&mut said.as_slice(), &mut canvas)).is_ok();
                let (right, bottom) = (u32::from(x) + u32::from(width), u32::from(y) + u32::from(height));
                prop_assert_eq!(is_heard, match encoding {
                    RAW => right <= 100 && bottom <= 70,
                    DESKTOP_SIZE => [width, height].iter().all(|side| (1..=LARGEST as u16).contains(side)),
                    KEYS => true,
                    _ => false,
                });
            }
        }
    }
}
