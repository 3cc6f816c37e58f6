//! What two keepers say to each other: a byte that says what it is, the length of what follows (four bytes, little-endian),
//! and that.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use watari_types::{Generation, PAGE_SIZE, PageSet, RegionName};
use zstd::bulk::{Compressor, Decompressor};

/// Pages in a frame at most: 1 MiB, small enough to stay in the cache.
pub(crate) const MOST_PAGES: usize = 256;
/// What a frame of pages, or of numbers, may take.
const MOST_BYTES: u32 = 1200 << 10;
/// Runs of pages in a frame at most.
const MOST_RUNS: usize = 1 << 16;
/// What the state of devices may take, in a frame and when it is unpacked.
const MOST_DEVICES: u32 = 256 << 20;
/// Time counts for more than space here: what is sent is never stored.
const LEVEL: i32 = 1;

/// What is said.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    /// The content of some pages of a region.
    Pages { region: RegionName, pages: Vec<u32>, content: Vec<u8> },
    /// Pages of a region whose content is lent: it does not come unless it is wanted.
    Owed { region: RegionName, pages: PageSet },
    /// The number of the snapshot that will hold what is lent.
    Lent(Generation),
    /// The content of these pages is wanted, at most [`MOST_PAGES`].
    Want { region: RegionName, pages: Vec<u32> },
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
const OWED: u8 = 6;
const LENT: u8 = 7;
const WANT: u8 = 8;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other side sent {what}"))
}

/// One end of the socket.
pub(crate) struct Wire {
    stream: UnixStream,
    pack: Compressor<'static>,
    unpack: Decompressor<'static>,
    frame: Vec<u8>,
    /// Bytes that were sent.
    pub(crate) sent: u64,
}

impl Wire {
    pub(crate) fn over(stream: UnixStream) -> io::Result<Wire> {
        let (pack, unpack) = (Compressor::new(LEVEL)?, Decompressor::new()?);
        Ok(Wire { stream, pack, unpack, frame: Vec::new(), sent: 0 })
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends the content of at most [`MOST_PAGES`] pages.
    pub(crate) fn send_pages(
        &mut self,
        region: &RegionName,
        pages: &[u32],
        content: &[u8],
    ) -> io::Result<()> {
        let packed = self.pack.compress(content)?;
        self.begin_with(PAGES, region);
        self.add_numbers(pages);
        self.frame.extend_from_slice(&packed);
        self.send()
    }

    /// Asks for the content of at most [`MOST_PAGES`] pages.
    pub(crate) fn send_want(&mut self, region: &RegionName, pages: &[u32]) -> io::Result<()> {
        self.begin_with(WANT, region);
        self.add_numbers(pages);
        self.send()
    }

    /// Says which pages of a region are lent, in as many frames as it takes; one at least.
    pub(crate) fn send_owed(&mut self, region: &RegionName, pages: &PageSet) -> io::Result<()> {
        let mut runs = pages.runs().peekable();
        loop {
            // Distances and lengths repeat, and take less room than numbers.
            let (mut lengths, mut at) = (Vec::new(), 0);
            for run in runs.by_ref().take(MOST_RUNS) {
                lengths.extend_from_slice(&(run.start - at).to_le_bytes());
                lengths.extend_from_slice(&(run.end - run.start).to_le_bytes());
                at = run.end;
            }
            let packed = self.pack.compress(&lengths)?;
            self.begin_with(OWED, region);
            self.frame.extend_from_slice(&packed);
            self.send()?;
            if runs.peek().is_none() {
                return Ok(());
            }
        }
    }

    pub(crate) fn send_lent(&mut self, generation: Generation) -> io::Result<()> {
        self.begin(LENT);
        self.frame.extend_from_slice(&generation.0.to_le_bytes());
        self.send()
    }

    pub(crate) fn send_devices(&mut self, state: &[u8]) -> io::Result<()> {
        let packed = self.pack.compress(state)?;
        self.begin(DEVICES);
        self.frame.extend_from_slice(&packed);
        self.send()
    }

    pub(crate) fn send_round(&mut self) -> io::Result<()> {
        self.begin(ROUND);
        self.send()
    }

    pub(crate) fn send_ready(&mut self) -> io::Result<()> {
        self.begin(READY);
        self.send()
    }

    pub(crate) fn send_taken(&mut self) -> io::Result<()> {
        self.begin(TAKEN);
        self.send()
    }

    fn begin(&mut self, kind: u8) {
        self.frame.clear();
        self.frame.extend_from_slice(&[kind, 0, 0, 0, 0]);
    }

    fn begin_with(&mut self, kind: u8, region: &RegionName) {
        let name = region.as_str().as_bytes();
        self.begin(kind);
        self.frame.push(name.len() as u8);
        self.frame.extend_from_slice(name);
    }

    fn add_numbers(&mut self, pages: &[u32]) {
        self.frame.extend_from_slice(&(pages.len() as u16).to_le_bytes());
        pages.iter().for_each(|page| self.frame.extend_from_slice(&page.to_le_bytes()));
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
    pub(crate) fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the other side is gone"),
            _ => error,
        })?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        let most = match kind {
            PAGES | OWED | WANT => MOST_BYTES,
            LENT => 8,
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
            OWED => self.owed(&content),
            WANT => want(&content),
            LENT => lent(&content),
            ROUND => Ok(Frame::Round),
            READY => Ok(Frame::Ready),
            TAKEN => Ok(Frame::Taken),
            _ => Err(bad("what is not known")),
        };
        self.frame = content;
        frame
    }

    fn pages(&mut self, content: &[u8]) -> io::Result<Frame> {
        let (region, rest) = region_in(content)?;
        let (pages, packed) = numbers_in(rest)?;
        match self.unpack.decompress(packed, pages.len() * PAGE_SIZE) {
            Ok(content) if content.len() == pages.len() * PAGE_SIZE => {
                Ok(Frame::Pages { region, pages, content })
            }
            _ => Err(bad("pages that cannot be unpacked")),
        }
    }

    fn owed(&mut self, content: &[u8]) -> io::Result<Frame> {
        let (region, packed) = region_in(content)?;
        let lengths = self.unpack.decompress(packed, MOST_RUNS * 8).map_err(|_| bad("runs of nothing"))?;
        let (mut pages, mut at) = (PageSet::new(), 0u32);
        for run in lengths.chunks(8) {
            let number = |at: usize| run.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
            let start = number(0).and_then(|gap| at.checked_add(gap));
            let end = start.zip(number(4)).and_then(|(start, length)| start.checked_add(length));
            let run =
                start.zip(end).filter(|(start, end)| start < end).ok_or_else(|| bad("runs of nothing"))?;
            pages.insert_range(run.0..run.1);
            at = run.1;
        }
        Ok(Frame::Owed { region, pages })
    }
}

fn region_in(content: &[u8]) -> io::Result<(RegionName, &[u8])> {
    let cut = || bad("a part of something");
    let (length, rest) = content.split_first().ok_or_else(cut)?;
    let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
    let region = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    Ok((region.ok_or_else(|| bad("pages of nothing"))?, rest))
}

fn numbers_in(content: &[u8]) -> io::Result<(Vec<u32>, &[u8])> {
    let cut = || bad("a part of some pages");
    let (count, rest) = content.split_first_chunk().ok_or_else(cut)?;
    let count = usize::from(u16::from_le_bytes(*count));
    if count == 0 || count > MOST_PAGES {
        return Err(bad("too many pages, or none"));
    }
    let (numbers, rest) = rest.split_at_checked(count * 4).ok_or_else(cut)?;
    Ok((numbers.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect(), rest))
}

fn want(content: &[u8]) -> io::Result<Frame> {
    let (region, rest) = region_in(content)?;
    match numbers_in(rest)? {
        (pages, []) => Ok(Frame::Want { region, pages }),
        _ => Err(bad("more than was announced")),
    }
}

fn lent(content: &[u8]) -> io::Result<Frame> {
    let number = content.try_into().map_err(|_| bad("a part of a number"))?;
    Ok(Frame::Lent(Generation(u64::from_le_bytes(number))))
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
                wire.send_owed(&RegionName::disk(0), &pages.iter().copied().collect()).unwrap();
                wire.send_want(&RegionName::disk(0), &pages).unwrap();
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
        one.send_lent(Generation(u64::MAX)).unwrap();
        one.send_want(&region, &pages).unwrap();
        one.send_owed(&region, &PageSet::new()).unwrap();
        let wanted = (region.clone(), pages.clone());
        assert_eq!(other.receive().unwrap(), Frame::Pages { region, pages, content });
        assert_eq!(other.receive().unwrap(), Frame::Round);
        assert_eq!(other.receive().unwrap(), Frame::Devices(vec![5; 100_000]));
        assert_eq!(other.receive().unwrap(), Frame::Ready);
        assert_eq!(other.receive().unwrap(), Frame::Taken);
        assert_eq!(other.receive().unwrap(), Frame::Lent(Generation(u64::MAX)));
        let (region, pages) = wanted;
        assert_eq!(other.receive().unwrap(), Frame::Want { region: region.clone(), pages });
        assert_eq!(other.receive().unwrap(), Frame::Owed { region: region.clone(), pages: PageSet::new() });
        drop(one);
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn any_number_of_pages_can_be_owed() {
        let owed: PageSet = (0..300_000).filter(|page| page % 3 > 0).collect();
        let (mut one, mut other) = pair();
        let mut told = PageSet::new();
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| one.send_owed(&RegionName::disk(0), &owed));
            for _ in 0..2 {
                let Frame::Owed { pages, .. } = other.receive().unwrap() else { panic!("something else") };
                told.union_with(&pages);
            }
            sent.join().unwrap().unwrap();
        });
        assert_eq!(told, owed);
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
            (LENT, vec![0; 7]),
            (WANT, [&[6][..], b"disk/0", &[1, 0, 0, 0, 0, 0, 9]].concat()),
            (WANT, [&[6][..], b"disk/0", &[1, 1]].concat()),
            (
                OWED,
                [&[6][..], b"disk/0", &zstd::bulk::compress(&[5, 0, 0, 0, 0, 0, 0, 0], 1).unwrap()].concat(),
            ),
            (OWED, [&[6][..], b"disk/0", &zstd::bulk::compress(&[1; 7], 1).unwrap()].concat()),
            (OWED, [&[6][..], b"disk/0", &[1; 7]].concat()),
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
