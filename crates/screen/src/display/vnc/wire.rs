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
const POINTER_KIND: i32 = -257;
const KEYS: i32 = -258;
const LIGHTS: i32 = -261;

/// What one message says, besides what it draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Whether the machine's pointer knows where it is, or how far it was moved.
    pub(super) is_absolute: Option<bool>,
    /// Whether keys may be said by their place.
    pub(super) has_keys: bool,
}

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

/// That pictures are to be sent like that, without compression; and what else is of interest. How lights are is not, but only
/// who asks for it has keys of the number pad left alone.
fn form() -> Vec<u8> {
    const SET_PIXEL_FORMAT: u8 = 0;
    const SET_ENCODINGS: u8 = 2;
    let encodings = [RAW, DESKTOP_SIZE, KEYS, POINTER_KIND, LIGHTS];
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

/// Hears one message.
pub(super) async fn hear(from: &mut (impl AsyncRead + Unpin), canvas: &mut Canvas) -> Result<Heard, Error> {
    const UPDATE: u8 = 0;
    const BELL: u8 = 2;
    const TEXT: u8 = 3;
    let mut heard = Heard::default();
    match from.read_u8().await? {
        UPDATE => {
            skip(from, 1).await?;
            for _ in 0..from.read_u16().await? {
                rectangle(from, canvas, &mut heard).await?;
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
    Ok(heard)
}

async fn rectangle(
    from: &mut (impl AsyncRead + Unpin),
    canvas: &mut Canvas,
    heard: &mut Heard,
) -> Result<(), Error> {
    let (x, y) = (from.read_u16().await?, from.read_u16().await?);
    let (width, height) = (from.read_u16().await?, from.read_u16().await?);
    match from.read_i32().await? {
        RAW => {
            let rect = Rect { x: x.into(), y: y.into(), width: width.into(), height: height.into() };
            pixels(from, canvas, rect).await?;
        }
        DESKTOP_SIZE => *canvas = self::canvas(width, height)?,
        POINTER_KIND => heard.is_absolute = Some(x != 0),
        KEYS => heard.has_keys = true,
        LIGHTS => skip(from, 1).await?,
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

    /// What is heard of one message to a screen of 100 × 70 pixels, and what is on it then.
    fn heard(mut said: &[u8]) -> Result<(Heard, Canvas), Error> {
        let mut canvas = Canvas::new(100, 70).unwrap();
        let heard = run(hear(&mut said, &mut canvas))?;
        assert_eq!(said, []);
        Ok((heard, canvas))
    }

    #[test]
    fn a_server_is_greeted_and_told_what_is_wanted() {
        let (canvas, answers) = greeted(&greeting(100, 70)).unwrap();
        assert_eq!(canvas.picture().area(), Rect { x: 0, y: 0, width: 100, height: 70 });
        let wanted = [
            &b"RFB 003.008\n"[..],
            &[1, 1],
            &[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
            &[2, 0, 0, 5, 0, 0, 0, 0, 255, 255, 255, 33, 255, 255, 254, 254, 255, 255, 254, 255],
            &[255, 255, 254, 251],
        ];
        assert_eq!(answers, wanted.concat());
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
        let (heard, canvas) = heard(&update(&[one, two, nothing])).unwrap();
        assert_eq!(heard, Heard::default());
        assert_eq!(canvas.picture().row(98, 69, 2), [0x01_0203, 0x04_0506]);
        assert_eq!(
            [canvas.picture().row(0, 0, 1), canvas.picture().row(0, 1, 1)],
            [[0x01_0203], [0x04_0506]]
        );
    }

    #[test]
    fn what_is_said_besides_is_heard() {
        let lights = [rectangle(0, 0, 1, 1, LIGHTS), vec![7]].concat();
        let all = [rectangle(0, 0, 9, 9, KEYS), rectangle(1, 0, 9, 9, POINTER_KIND), lights];
        let (known, _) = heard(&update(&all)).unwrap();
        assert_eq!(known, Heard { is_absolute: Some(true), has_keys: true });
        let (known, canvas) = heard(&update(&[rectangle(0, 0, 5, 6, DESKTOP_SIZE)])).unwrap();
        assert_eq!((known, canvas.picture().width(), canvas.picture().height()), (Heard::default(), 5, 6));
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
        for encoding in [1, 5, 16, -224, -239, -308, i32::MIN] {
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
        let lights = [rectangle(0, 0, 1, 1, LIGHTS), vec![7]].concat();
        let said = update(&[pixels, lights, rectangle(0, 0, 5, 6, DESKTOP_SIZE)]);
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
            encoding in proptest::sample::select(vec![RAW, DESKTOP_SIZE, POINTER_KIND, KEYS, LIGHTS, 1, -1]),
        ) {
            for [x, y, width, height] in [place, small.map(u16::from)] {
                let said = [update(&[rectangle(x, y, width, height, encoding)]), vec![9; 70 * 100 * 4]].concat();
                let mut canvas = Canvas::new(100, 70).unwrap();
                let is_heard = run(hear(&mut said.as_slice(), &mut canvas)).is_ok();
                let (right, bottom) = (u32::from(x) + u32::from(width), u32::from(y) + u32::from(height));
                prop_assert_eq!(is_heard, match encoding {
                    RAW => right <= 100 && bottom <= 70,
                    DESKTOP_SIZE => [width, height].iter().all(|side| (1..=LARGEST as u16).contains(side)),
                    POINTER_KIND | KEYS | LIGHTS => true,
                    _ => false,
                });
            }
        }
    }
}
