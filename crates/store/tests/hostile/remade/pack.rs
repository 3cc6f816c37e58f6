//! Packs taken apart and put together again, as docs/FORMAT.md has them.

use zstd::bulk;
use zstd::zstd_safe::CParameter;

use super::Edits;

/// Below the file itself.
pub(super) const LAYERS: u8 = 3;

const CONTENT: u8 = 0;
const FRAMES: u8 = 1;
const INDEX: u8 = 2;

const HEADER: usize = 16;
const FOOTER: usize = 64;
const COUNTS: usize = 8;
const ENTRY: usize = 48;
const NAME: usize = 32;
const PAGE: usize = 4096;

/// A frame as it is stored, and what the index says of it besides where it is.
struct Frame {
    stored: Vec<u8>,
    /// Pages and kind.
    counts: [u8; 4],
}

impl Frame {
    fn pages(&self) -> usize {
        usize::from(u16::from_le_bytes([self.counts[0], self.counts[1]]))
    }

    /// How many of its bytes are names of other pages.
    fn names(&self) -> usize {
        if self.counts[2] == 0 { 0 } else { self.pages() * NAME }
    }

    fn content(&self) -> Vec<u8> {
        bulk::decompress(&self.stored[self.names()..], self.pages() * PAGE).unwrap()
    }

    fn set_content(&mut self, content: &[u8]) {
        let mut zstd = bulk::Compressor::new(3).unwrap();
        zstd.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
        self.stored.truncate(self.names());
        self.stored.extend(zstd.compress(content).unwrap());
    }
}

/// A sound pack after its edits below the file.
pub(super) fn remade(name: &mut String, pack: &[u8], edits: &Edits<'_>) -> Vec<u8> {
    if !edits.reach_below(LAYERS) {
        return pack.to_vec();
    }
    let (mut frames, names) = taken_apart(pack);
    if edits.reach_below(CONTENT + 1) {
        let mut contents: Vec<Vec<u8>> = frames.iter().map(Frame::content).collect();
        edits.apply_to_parts(CONTENT, &mut contents.iter_mut().collect::<Vec<_>>());
        frames.iter_mut().zip(&contents).for_each(|(frame, content)| frame.set_content(content));
    }
    let mut stored: Vec<&mut Vec<u8>> = frames.iter_mut().map(|frame| &mut frame.stored).collect();
    edits.apply_to_parts(FRAMES, &mut stored);
    let mut index = index(&frames, names);
    edits.apply(INDEX, &mut index);
    let id = blake3::hash(&index);
    *name = format!("packs/{id}.pack");
    put_together(&pack[..HEADER], &frames, &index, id.as_bytes())
}

/// The frames, and the names of all pages.
fn taken_apart(pack: &[u8]) -> (Vec<Frame>, &[u8]) {
    let footer = &pack[pack.len() - FOOTER..];
    let index = &pack[number::<8>(footer) as usize..pack.len() - FOOTER];
    let (entries, names) = index[COUNTS..].split_at(number::<4>(index) as usize * ENTRY);
    let frame = |entry: &[u8]| Frame {
        stored: pack[number::<8>(entry) as usize..][..number::<4>(&entry[8..]) as usize].to_vec(),
        counts: *entry[12..].first_chunk().unwrap(),
    };
    (entries.chunks(ENTRY).map(frame).collect(), names)
}

fn number<const BYTES: usize>(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..BYTES].copy_from_slice(&bytes[..BYTES]);
    u64::from_le_bytes(number)
}

fn index(frames: &[Frame], names: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((frames.len() as u32).to_le_bytes());
    bytes.extend(((names.len() / NAME) as u32).to_le_bytes());
    let mut offset = HEADER as u64;
    for frame in frames {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((frame.stored.len() as u32).to_le_bytes());
        bytes.extend(frame.counts);
        bytes.extend(blake3::hash(&frame.stored).as_bytes());
        offset += frame.stored.len() as u64;
    }
    bytes.extend(names);
    bytes
}

fn put_together(header: &[u8], frames: &[Frame], index: &[u8], id: &[u8; 32]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    frames.iter().for_each(|frame| bytes.extend(&frame.stored));
    let index_offset = bytes.len() as u64;
    bytes.extend(index);
    bytes.extend(index_offset.to_le_bytes());
    bytes.extend((index.len() as u64).to_le_bytes());
    bytes.extend(id);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"WTRPEND\n");
    bytes
}
