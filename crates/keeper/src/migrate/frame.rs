//! What two keepers say to each other: a byte that says what it is, the length of what follows (four bytes, little-endian),
//! and that.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use watari_types::{PAGE_SIZE, RegionName};
use zstd::bulk::{Compressor, Decompressor};

/// Pages in a frame at most: 1 MiB, small enough to stay in the cache.
pub(super) const MOST_PAGES: usize = 256;
/// What a frame of pages, or any but one of devices, may take.
const MOST_BYTES: u32 = 1200 << 10;
/// What the state of devices may take, in a frame and when it is unpacked.
const MOST_DEVICES: u32 = 256 << 20;
/// Time counts for more than space here: what is sent is never stored.
const LEVEL: i32 = 1;

/// What is said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The content of some pages of a region.
    Pages { region: RegionName, pages: Vec<u32>, content: Vec<u8> },
    /// A round is over: say so when all of it was taken.
    Round,
    /// The state of the devices. Nothing follows.
    Devices(Vec<u8>),
    /// All is ready for the first round.
    Ready,
    /// A round was taken.
    Taken,
}

const PAGES: u8 = 1;
const ROUND: u8 = 2;
const DEVICES: u8 = 3;
const READY: u8 = 4;
const TAKEN: u8 = 5;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other side sent {what}"))
}

/// One end of the socket.
pub(super) struct Wire {
    stream: UnixStream,
    pack: Compressor<'static>,
    unpack: Decompressor<'static>,
    frame: Vec<u8>,
    /// Bytes that were sent.
    pub(super) sent: u64,
}

impl Wire {
    pub(super) fn over(stream: UnixStream) -> io::Result<Wire> {
        let (pack, unpack) = (Compressor::new(LEVEL)?, Decompressor::new()?);
        Ok(Wire { stream, pack, unpack, frame: Vec::new(), sent: 0 })
    }

    /// The socket itself.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends the content of at most [`MOST_PAGES`] pages.
    pub(super) fn send_pages(
        &mut self,
        region: &RegionName,
        pages: &[u32],
        content: &[u8],
    ) -> io::Result<()> {
        let packed = self.pack.compress(content)?;
        let name = region.as_str().as_bytes();
        self.begin(PAGES);
        self.frame.push(name.len() as u8);
        self.frame.extend_from_slice(name);
        self.frame.extend_from_slice(&(pages.len() as u16).to_le_bytes());
        pages.iter().for_each(|page| self.frame.extend_from_slice(&page.to_le_bytes()));
        self.frame.extend_from_slice(&packed);
        self.send()
    }

    pub(super) fn send_devices(&mut self, state: &[u8]) -> io::Result<()> {
        let packed = self.pack.compress(state)?;
        self.begin(DEVICES);
        self.frame.extend_from_slice(&packed);
        self.send()
    }

    pub(super) fn send_round(&mut self) -> io::Result<()> {
        self.begin(ROUND);
        self.send()
    }

    pub(super) fn send_ready(&mut self) -> io::Result<()> {
        self.begin(READY);
        self.send()
    }

    pub(super) fn send_taken(&mut self) -> io::Result<()> {
        self.begin(TAKEN);
        self.send()
    }

    fn begin(&mut self, kind: u8) {
        self.frame.clear();
        self.frame.extend_from_slice(&[kind, 0, 0, 0, 0]);
    }

    fn send(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.frame.len() - 5).map_err(|_| bad("too much"))?;
        self.frame[1..5].copy_from_slice(&length.to_le_bytes());
        self.sent += self.frame.len() as u64;
        self.stream.write_all(&self.frame)
    }

    /// Waits for a frame.
    ///
    /// # Errors
    /// It does not come, or cannot be understood.
    pub(super) fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the other side is gone"),
            _ => error,
        })?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        let most = match kind {
            PAGES => MOST_BYTES,
            DEVICES => MOST_DEVICES,
            _ => 0,
        };
        if length > most {
            return Err(bad("too much at once"));
        }
        let mut content = std::mem::take(&mut self.frame);
        content.clear();
        // What is announced takes no memory before it comes.
        (&self.stream).take(u64::from(length)).read_to_end(&mut content)?;
        if content.len() != length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = match kind {
            PAGES => self.pages(&content),
            DEVICES => devices(&content),
            ROUND => Ok(Frame::Round),
            READY => Ok(Frame::Ready),
            TAKEN => Ok(Frame::Taken),
            _ => Err(bad("what is not known")),
        };
        self.frame = content;
        frame
    }

    fn pages(&mut self, content: &[u8]) -> io::Result<Frame> {
        let cut = || bad("a part of some pages");
        let (length, rest) = content.split_first().ok_or_else(cut)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
        let region = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let region = region.ok_or_else(|| bad("pages of nothing"))?;
        let (count, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let count = usize::from(u16::from_le_bytes(*count));
        if count == 0 || count > MOST_PAGES {
            return Err(bad("too many pages, or none"));
        }
        let (numbers, packed) = rest.split_at_checked(count * 4).ok_or_else(cut)?;
        let pages = numbers.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
        match self.unpack.decompress(packed, count * PAGE_SIZE) {
            Ok(content) if content.len() == count * PAGE_SIZE => Ok(Frame::Pages { region, pages, content }),
            _ => Err(bad("pages that cannot be unpacked")),
        }
    }
}

fn devices(packed: &[u8]) -> io::Result<Frame> {
    let mut state = Vec::new();
    let unpacked = zstd::Decoder::new(packed)?.take(u64::from(MOST_DEVICES) + 1).read_to_end(&mut state);
    unpacked.map_err(|_| bad("device state that cannot be unpacked"))?;
    if state.len() > MOST_DEVICES as usize {
        return Err(bad("too much device state"));
    }
    Ok(Frame::Devices(state))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is made of bytes, frame by frame, until they end or mean nothing.
    fn understood(bytes: Vec<u8>) -> (Vec<Frame>, io::ErrorKind) {
        let (one, other) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || drop((&one).write_all(&bytes)));
        let mut wire = Wire::over(other).unwrap();
        let mut frames = Vec::new();
        let end = loop {
            match wire.receive() {
                Ok(frame) => frames.push(frame),
                Err(error) => break error.kind(),
            }
        };
        drop(wire);
        writer.join().unwrap();
        (frames, end)
    }

    fn sent(say: impl FnOnce(&mut Wire)) -> Vec<u8> {
        let (mut one, other) = pair();
        say(&mut one);
        drop(one);
        let mut bytes = Vec::new();
        (&other.stream).read_to_end(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (_, end) = understood(bytes);
            prop_assert!(matches!(end, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof));
        }

        #[test]
        fn frames_that_are_changed_are_understood_or_refused(
            pages in prop::collection::btree_set(any::<u32>(), 1..20),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let pages: Vec<u32> = pages.into_iter().collect();
            let content: Vec<u8> = (0..pages.len() * PAGE_SIZE).map(|at| (at / 64) as u8).collect();
            let mut bytes = sent(|wire| {
                wire.send_pages(&RegionName::ram("m0").unwrap(), &pages, &content).unwrap();
                wire.send_devices(&content).unwrap();
            });
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for frame in understood(bytes).0 {
                if let Frame::Pages { pages, content, .. } = frame {
                    prop_assert!(pages.len() <= MOST_PAGES && content.len() == pages.len() * PAGE_SIZE);
                }
            }
        }
    }

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::over(one).unwrap(), Wire::over(other).unwrap())
    }

    #[test]
    fn what_is_sent_is_received() {
        let (mut one, mut other) = pair();
        let region = RegionName::disk(3);
        let pages = vec![7, 8, u32::MAX];
        let content: Vec<u8> = (0..3 * PAGE_SIZE).map(|at| (at / 100) as u8).collect();
        one.send_pages(&region, &pages, &content).unwrap();
        one.send_round().unwrap();
        one.send_devices(&[5; 100_000]).unwrap();
        one.send_ready().unwrap();
        one.send_taken().unwrap();
        assert_eq!(other.receive().unwrap(), Frame::Pages { region, pages, content });
        assert_eq!(other.receive().unwrap(), Frame::Round);
        assert_eq!(other.receive().unwrap(), Frame::Devices(vec![5; 100_000]));
        assert_eq!(other.receive().unwrap(), Frame::Ready);
        assert_eq!(other.receive().unwrap(), Frame::Taken);
        drop(one);
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let one_page = |name: &[u8], count: u16, pages: usize| {
            let packed = zstd::bulk::compress(&vec![1; pages * PAGE_SIZE], 1).unwrap();
            let numbers = vec![0; usize::from(count) * 4];
            [&[name.len() as u8], name, &count.to_le_bytes(), &numbers, &packed].concat()
        };
        for (kind, content) in [
            (PAGES, vec![]),
            (PAGES, one_page(b"disk/0", 0, 0)),
            (PAGES, one_page(b"disk/0", 257, 257)),
            (PAGES, one_page(b"disk/0", 2, 1)),
            (PAGES, one_page(b"disk/0", 1, 2)),
            (PAGES, one_page(b"nothing", 1, 1)),
            (PAGES, one_page(b"\xff\xff", 1, 1)),
            (PAGES, [&[200][..], b"disk/0"].concat()),
            (DEVICES, b"no frame".to_vec()),
            (ROUND, vec![0]),
            (9, vec![]),
        ] {
            let (mut one, mut other) = pair();
            let head = [&[kind][..], &(content.len() as u32).to_le_bytes()].concat();
            one.stream.write_all(&[head, content].concat()).unwrap();
            let refused = other.receive().map(drop);
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData, "kind {kind}");
        }
        let (mut one, mut other) = pair();
        one.stream.write_all(&[PAGES, 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
