//! The bytes of a pack but for its frames; see docs/FORMAT.md, *Packs*.

use std::fmt;

use watari_types::{PAGE_SIZE, PageHash};

use crate::bytes::Parser;
use crate::error::Defect;

/// Pages compressed together: few enough that reading one page stays cheap, enough for it to compress well.
pub(crate) const PAGES_PER_FRAME: usize = 64;
/// Bytes in a full frame before compression.
pub(crate) const FRAME_BYTES: usize = PAGES_PER_FRAME * PAGE_SIZE;
/// More than any compressor makes of a full frame; a longer one is not read.
pub(crate) const MAX_STORED_FRAME: u32 = 512 << 10;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 16;
/// Bytes after the index.
pub(crate) const FOOTER_BYTES: u64 = 64;
/// A pack of one frame with one page in the shortest frame there can be is longer than this.
pub(crate) const MIN_BYTES: u64 = HEADER_BYTES + FOOTER_BYTES;

const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"WTRPACK\n";
const END_MAGIC: [u8; 8] = *b"WTRPEND\n";
/// The counts an index begins with.
pub(crate) const COUNTS_BYTES: u64 = 8;
const FRAME_ENTRY_BYTES: u64 = 48;
const HASH_BYTES: u64 = 32;

/// A pack's name: the hash of its index, and through the hashes in there of all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackId(pub(crate) [u8; 32]);

impl PackId {
    pub(crate) fn parse(hex: &str) -> Option<PackId> {
        let mut id = [0; 32];
        hex::decode_to_slice(hex, &mut id).ok()?;
        Some(PackId(id))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a frame's content says about its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Their bytes.
    Pages,
    /// Where they differ from other pages, whose names come first.
    Changes,
}

/// Where a frame is and what is in it.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    /// The position of its first page among all pages of the pack.
    pub(crate) first_page: u32,
    pub(crate) pages: u32,
    pub(crate) hash: [u8; 32],
}

impl Frame {
    /// How many of its bytes are names of other pages.
    pub(crate) fn names_bytes(&self) -> usize {
        match self.kind {
            Kind::Pages => 0,
            Kind::Changes => self.pages as usize * HASH_BYTES as usize,
        }
    }
}

/// What is in a pack, and where.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) frames: Vec<Frame>,
    pub(crate) pages: Vec<PageHash>,
}

/// The first bytes of every pack.
pub(crate) fn header() -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

impl Index {
    /// Where the next frame begins.
    pub(crate) fn end_of_frames(&self) -> u64 {
        end_of(&self.frames)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_head();
        bytes.reserve_exact(size_of::<PageHash>() * self.pages.len());
        bytes.extend(self.pages.iter().flat_map(|page| page.0));
        bytes
    }

    /// All of it but the pages' names.
    pub(crate) fn encode_head(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(index_bytes(self.frames.len() as u32, 0) as usize);
        bytes.extend((self.frames.len() as u32).to_le_bytes());
        bytes.extend((self.pages.len() as u32).to_le_bytes());
        for frame in &self.frames {
            bytes.extend(frame.offset.to_le_bytes());
            bytes.extend(frame.bytes.to_le_bytes());
            bytes.extend((frame.pages as u16).to_le_bytes());
            bytes.extend((frame.kind as u16).to_le_bytes());
            bytes.extend(frame.hash);
        }
        bytes
    }
}

/// The hash of the beginning of a pack's index: whoever knows it can tell without reading the names that it is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadHash(pub(crate) [u8; 32]);

impl HeadHash {
    /// Of its bytes.
    pub(crate) fn of(head: &[u8]) -> HeadHash {
        HeadHash(*blake3::hash(head).as_bytes())
    }
}

/// The beginning of an index: how many frames and pages there are, and the frames. The pages' names follow.
pub(crate) struct IndexHead {
    pub(crate) frames: Vec<Frame>,
    pub(crate) pages: u32,
}

impl IndexHead {
    /// Its length in bytes, given the first of them and the length of the whole index.
    pub(crate) fn bytes(first: &[u8], index_bytes: u64) -> Result<u64, Defect> {
        let (frames, pages) = counts(&mut Parser(first))?;
        if pages == 0 || index_bytes != self::index_bytes(frames, pages) {
            return Err(Defect::new("its index has the wrong length"));
        }
        Ok(self::index_bytes(frames, 0))
    }

    /// Reads it. The frames must fill the file up to `index_offset`.
    pub(crate) fn decode(bytes: &[u8], index_offset: u64) -> Result<IndexHead, Defect> {
        let mut parser = Parser(bytes);
        let (count, pages) = counts(&mut parser)?;
        let mut frames: Vec<Frame> = Vec::with_capacity(count as usize);
        let mut first_page = 0_u32;
        for _ in 0..count {
            let frame = frame(&mut parser, first_page)?;
            let sound = frame.offset == end_of(&frames)
                && frame.bytes <= MAX_STORED_FRAME
                && frame.bytes as usize >= frame.names_bytes()
                && (1..=PAGES_PER_FRAME as u32).contains(&frame.pages);
            first_page = match first_page.checked_add(frame.pages) {
                Some(next) if sound => next,
                _ => return Err(Defect::new("its index contradicts itself")),
            };
            frames.push(frame);
        }
        if first_page != pages || end_of(&frames) != index_offset {
            return Err(Defect::new("its index contradicts itself"));
        }
        Ok(IndexHead { frames, pages })
    }
}

fn counts(parser: &mut Parser<'_>) -> Result<(u32, u32), Defect> {
    Ok((parser.u32()?, parser.u32()?))
}

fn frame(parser: &mut Parser<'_>, first_page: u32) -> Result<Frame, Defect> {
    let (offset, bytes) = (parser.u64()?, parser.u32()?);
    let pages = u32::from(u16::from_le_bytes(parser.array()?));
    let kind = match u16::from_le_bytes(parser.array()?) {
        0 => Kind::Pages,
        1 => Kind::Changes,
        _ => return Err(Defect::new("its index tells of frames of an unknown kind")),
    };
    Ok(Frame { kind, offset, bytes, pages, first_page, hash: parser.array()? })
}

/// Where the index begins in a pack of these frames.
fn end_of(frames: &[Frame]) -> u64 {
    frames.last().map_or(HEADER_BYTES, |frame| frame.offset + u64::from(frame.bytes))
}

/// Where the name of the page at `position` is in a pack of these frames.
pub(crate) fn name_offset(frames: &[Frame], position: u32) -> u64 {
    end_of(frames) + index_bytes(frames.len() as u32, position)
}

fn index_bytes(frames: u32, pages: u32) -> u64 {
    COUNTS_BYTES + FRAME_ENTRY_BYTES * u64::from(frames) + HASH_BYTES * u64::from(pages)
}

/// A pack's last bytes.
#[derive(PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) index_offset: u64,
    pub(crate) index_bytes: u64,
    pub(crate) id: PackId,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES as usize);
        bytes.extend(self.index_offset.to_le_bytes());
        bytes.extend(self.index_bytes.to_le_bytes());
        bytes.extend(self.id.0);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(END_MAGIC);
        bytes
    }

    /// Reads the footer of a file of `file_bytes` bytes, given its first bytes and its last ones.
    pub(crate) fn decode(first: &[u8], last: &[u8], file_bytes: u64) -> Result<Footer, Defect> {
        let mut head = Parser(first);
        let (magic, version, zero) = (head.array::<8>()?, head.u32()?, head.u32()?);
        let mut foot = Parser(last);
        let footer =
            Footer { index_offset: foot.u64()?, index_bytes: foot.u64()?, id: PackId(foot.array()?) };
        let (end_version, end_zero, end_magic) = (foot.u32()?, foot.u32()?, foot.array::<8>()?);
        if magic != MAGIC || end_magic != END_MAGIC {
            return Err(Defect::new("it is not a whole pack"));
        }
        if version == end_version && version > VERSION {
            return Err(Defect::NewerFormat(version));
        }
        let end =
            footer.index_offset.checked_add(footer.index_bytes).and_then(|e| e.checked_add(FOOTER_BYTES));
        if (version, end_version) != (VERSION, VERSION)
            || (zero, end_zero) != (0, 0)
            || end != Some(file_bytes)
        {
            return Err(Defect::new("its header and footer contradict each other"));
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(frames: &[(u64, u32, u32)], pages: usize) -> Vec<u8> {
        index_of(Kind::Pages, frames, pages)
    }

    fn index_of(kind: Kind, frames: &[(u64, u32, u32)], pages: usize) -> Vec<u8> {
        let frame =
            |&(offset, bytes, pages)| Frame { kind, offset, bytes, first_page: 0, pages, hash: [1; 32] };
        Index { frames: frames.iter().map(frame).collect(), pages: vec![PageHash([2; 32]); pages] }.encode()
    }

    fn decode(bytes: &[u8], index_offset: u64) -> Result<IndexHead, Defect> {
        let head = IndexHead::bytes(bytes, bytes.len() as u64)?;
        IndexHead::decode(&bytes[..head as usize], index_offset)
    }

    #[test]
    fn an_index_with_gaps_overlaps_or_wrong_sums_is_refused() {
        let good = index(&[(16, 10, 64), (26, 20, 1)], 65);
        let read = decode(&good, 46).ok().unwrap();
        assert_eq!((read.frames[1].first_page, read.pages), (64, 65));
        assert_eq!(Index { frames: read.frames, pages: vec![PageHash([2; 32]); 65] }.encode(), good);
        let bad = [
            (index(&[(16, 10, 64), (27, 20, 1)], 65), 47),
            (index(&[(16, 10, 64), (25, 20, 1)], 65), 45),
            (index(&[(17, 10, 1)], 1), 27),
            (index(&[(16, 10, 65)], 65), 26),
            (index(&[(16, 10, 0), (26, 20, 1)], 1), 46),
            (index(&[(16, 10, 2)], 1), 26),
            (index(&[(16, u32::MAX, 1)], 1), 16 + u64::from(u32::MAX)),
            (index(&[], 0), 16),
            (good, 47),
            (index_of(Kind::Changes, &[(16, 63, 2)], 2), 79),
            (
                {
                    let mut unknown = index(&[(16, 10, 1)], 1);
                    unknown[22] = 2;
                    unknown
                },
                26,
            ),
        ];
        assert!(decode(&index_of(Kind::Changes, &[(16, 64, 2)], 2), 80).is_ok());
        for (number, (bytes, end)) in bad.iter().enumerate() {
            assert!(decode(bytes, *end).is_err(), "{number}");
        }
    }

    #[test]
    fn a_footer_whose_numbers_overflow_is_refused() {
        for (index_offset, index_bytes) in [(u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (0, 0)] {
            let footer = Footer { index_offset, index_bytes, id: PackId([0; 32]) };
            assert!(Footer::decode(&header(), &footer.encode(), 1000).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_index_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), counts: bool) {
            if counts && bytes.len() >= 88 {
                bytes[..8].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
                bytes.truncate(88);
            }
            let _ = decode(&bytes, 1000);
            let _ = Footer::decode(&header(), &bytes, 1000);
        }
    }
}
