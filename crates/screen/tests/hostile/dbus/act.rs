//! What QEMU does, one thing after the other, and how that is written down in an input.

use zbus::message::Message;

use crate::hostile::Said;

/// What a picture's size is said to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: u32,
    pub(super) format: u32,
}

/// Where something has changed: from the left, from the top, width and height.
pub(super) type Place = [i32; 4];

/// What QEMU does.
#[derive(Debug)]
pub(super) enum Act {
    /// It sends a picture,
    Scanout(Shape, Vec<u8>),
    /// and a part of it: the shape's width and height are the place's.
    Update(Place, Shape, Vec<u8>),
    /// It shares a picture,
    ScanoutMap(Memory, Shape),
    /// tells that a part of it is another,
    UpdateMap(Place),
    /// gives the memory that it has shared another size,
    Resize(u32),
    /// and writes there.
    Write(u32, Vec<u8>),
    /// It shows nothing any more.
    Disable,
    /// It calls what has to do with no picture, or is not there.
    Other(u8, Place, Vec<u8>),
    /// It says this instead, and hangs up.
    Bytes(Vec<u8>),
}

/// Memory that is shared.
#[derive(Debug)]
pub(super) struct Memory {
    /// Whether it is: a socket is not.
    pub(super) is_one: bool,
    pub(super) size: u32,
    /// Where in it the picture is said to begin.
    pub(super) offset: u32,
    /// What is there at first, from the beginning.
    pub(super) data: Vec<u8>,
}

impl Act {
    /// The next one there is.
    pub(super) fn next(said: &mut Said) -> Option<Act> {
        Some(match said.number(1)? % 9 {
            0 => Act::Scanout(shape(said)?, data(said)?),
            1 => {
                let place = place(said)?;
                let [stride, format] = [number(said)?, number(said)?];
                let shape = Shape { width: place[2] as u32, height: place[3] as u32, stride, format };
                Act::Update(place, shape, data(said)?)
            }
            2 => {
                let (is_one, size, offset) = (said.number(1)? > 0, number(said)?, number(said)?);
                let shape = shape(said)?;
                Act::ScanoutMap(Memory { is_one, size, offset, data: data(said)? }, shape)
            }
            3 => Act::UpdateMap(place(said)?),
            4 => Act::Resize(number(said)?),
            5 => Act::Write(number(said)?, data(said)?),
            6 => Act::Disable,
            7 => Act::Other(said.number(1)? as u8, place(said)?, data(said)?),
            _ => Act::Bytes(std::mem::take(&mut said.0).to_vec()),
        })
    }
}

fn number(said: &mut Said) -> Option<u32> {
    Some(said.number(4)? as u32)
}

fn place(said: &mut Said) -> Option<Place> {
    Some([number(said)?, number(said)?, number(said)?, number(said)?].map(u32::cast_signed))
}

fn shape(said: &mut Said) -> Option<Shape> {
    Some(Shape { width: number(said)?, height: number(said)?, stride: number(said)?, format: number(said)? })
}

/// So many bytes, of which an input says only where they begin to differ.
fn data(said: &mut Said) -> Option<Vec<u8>> {
    let (length, seed) = (said.number(2)?, said.number(1)? as u32);
    Some((seed..).take(length).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect())
}

/// `PIXMAN_x8r8g8b8`.
const FORMAT: u32 = 0x2002_0888;

/// Inputs to begin with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begun = |acts: &[Vec<u8>]| [vec![0], acts.concat()].concat();
    let (sent, shared) = (scanout(70, 20, 280, 5600), scanout_map(5700, 100, 70, 20, 280));
    let (part, changed) = (update([60, 10, 8, 3], 32, 96), write(3000, 900));
    let beyond = [
        update([69, 19, 20, 20], 80, 1600),
        update([-1, 0, 8, 3], 32, 96),
        update_map([0, 0, i32::MAX, i32::MAX]),
    ];
    let large =
        [scanout(8192, 1, 1 << 15, 1 << 15), scanout(8193, 1, 1 << 16, 40), scanout(1, 8192, 4, 1 << 15)];
    let shrunk =
        [shared.clone(), resize(3000), update_map([0, 0, 70, 20]), resize(0), update_map([5, 5, 1, 1])];
    let lies = [
        scanout_map(40, u32::MAX, 70, 20, 280),
        scanout_map(5700, 0, 70, 20, u32::MAX),
        scanout_map(u32::MAX, u32::MAX - 6000, 70, 20, 280),
        scanout_map(5700, 0, 70, 20, 279),
        scanout_map(5700, 0, 0, 20, 280),
        [vec![2, 0], scanout_map(0, 0, 70, 20, 280)[2..].to_vec()].concat(),
    ];
    let others: Vec<Vec<u8>> = (0..10).map(|which| other(which, [64, 64, 1, 1], 64)).collect();
    let call = [vec![8], bytes()].concat();
    vec![
        ("nothing", Vec::new()),
        ("a-picture-that-is-sent", begun(&[sent.clone(), part.clone(), vec![6], part.clone()])),
        ("a-picture-that-is-shared", begun(&[shared.clone(), changed.clone(), update_map([0, 9, 70, 3])])),
        (
            "one-and-the-other",
            begun(&[shared.clone(), sent.clone(), changed, update_map([1, 0, 69, 20]), part]),
        ),
        (
            "less-than-was-said",
            begun(&[scanout(70, 20, 280, 900), scanout(70, 20, 1000, 1270), scanout(7, 2, 27, 56)]),
        ),
        ("outside", begun(&[&[sent][..], &beyond, &[shared], &beyond].concat())),
        ("large", begun(&large)),
        ("shrunk", begun(&shrunk)),
        ("memory-that-lies", begun(&lies)),
        ("what-is-not-there", begun(&others)),
        ("a-call-in-bytes", begun(std::slice::from_ref(&call))),
        ("half-a-call", begun(&[call[..call.len() / 2].to_vec()])),
        ("a-call-of-gigabytes", begun(&[[&call[..5], &[0xff; 4], &call[9..]].concat()])),
        ("no-greeting", [&[1][..], b"HTTP/1.1 400 Bad Request\r\n\r\n"].concat()),
        ("an-empty-line", vec![1, b'\n']),
        ("a-line-without-end", [vec![2], vec![b'O'; 5000]].concat()),
        (
            "a-greeting-to-none",
            [&[2][..], b"OK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n"].concat(),
        ),
        ("a-listener-that-is-left", vec![3]),
    ]
}

fn act(kind: u8, numbers: &[u32], data: Option<u16>) -> Vec<u8> {
    let data = data.map(|length| [&length.to_be_bytes()[..], &[length as u8]].concat());
    let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
    [kind].into_iter().chain(numbers).chain(data.unwrap_or_default()).collect()
}

fn scanout(width: u32, height: u32, stride: u32, length: u16) -> Vec<u8> {
    act(0, &[width, height, stride, FORMAT], Some(length))
}

fn update(place: Place, stride: u32, length: u16) -> Vec<u8> {
    act(1, &[&place.map(i32::cast_unsigned)[..], &[stride, FORMAT]].concat(), Some(length))
}

fn scanout_map(size: u32, offset: u32, width: u32, height: u32, stride: u32) -> Vec<u8> {
    let rest = act(1, &[size, offset, width, height, stride, FORMAT], Some(size.min(5000) as u16));
    [vec![2], rest].concat()
}

fn update_map(place: Place) -> Vec<u8> {
    act(3, &place.map(i32::cast_unsigned), None)
}

fn resize(size: u32) -> Vec<u8> {
    act(4, &[size], None)
}

fn write(at: u32, length: u16) -> Vec<u8> {
    act(5, &[at], Some(length))
}

fn other(which: u8, place: Place, length: u16) -> Vec<u8> {
    [vec![7], act(which, &place.map(i32::cast_unsigned), Some(length))].concat()
}

/// A call as it goes over the line.
fn bytes() -> Vec<u8> {
    let call = Message::method_call("/org/qemu/Display1/Listener", "Update").unwrap();
    let call = call.interface("org.qemu.Display1.Listener").unwrap();
    let call = call.build(&(3, 3, 2, 1, 8_u32, FORMAT, vec![7_u8; 8])).unwrap();
    let mut bytes = call.data().to_vec();
    // All messages of a process are numbered.
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes
}
