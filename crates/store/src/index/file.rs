//! The index as it was when a process last wrote it down, so that others need not read every pack; see docs/FORMAT.md,
//! *The index of all packs*.
//!
//! It is no part of the truth. Without it, or if anything in it is not as it should be, packs are read instead.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::Xxh3;

use super::{Entry, Known, PageIndex, Table};
use crate::bytes::Parser;
use crate::error::{At, Defect, Error};
use crate::files::NewFile;
use crate::layout::Layout;
use crate::pack::{HeadHash, PackId};

const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"WTRINDX\n";
const HEADER_BYTES: u64 = 24;
const PACK_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 16;
const CHECK_BYTES: u64 = 8;
/// What is read or written at a time: it does not leave the processor's cache before it has been looked at twice.
const PIECE: usize = 256 << 10;

impl PageIndex {
    /// Reads what was written down; nothing if there is nothing, or nothing of use. The packs are not looked at.
    pub(crate) fn load(layout: &Layout) -> PageIndex {
        // Elsewhere nobody writes any.
        if layout.is_elsewhere() {
            return PageIndex::default();
        }
        read(&layout.index()).unwrap_or_else(|error| {
            if !error.is_gone() {
                tracing::warn!("{error}; all packs are read instead");
            }
            PageIndex::default()
        })
    }

    /// Writes it down. Not synced: what is torn by a loss of power is noticed, and made again.
    pub(crate) fn save(&self, layout: &Layout) -> Result<(), Error> {
        let file = NewFile::create(&layout.tmp())?;
        let mut out = Output { file, piece: Vec::with_capacity(PIECE), offset: 0, check: Xxh3::new() };
        out.put(&MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&(self.packs.len() as u32).to_le_bytes())?;
        out.put(&(self.table.len() as u64).to_le_bytes())?;
        self.packs.iter().try_for_each(|pack| out.put(&[pack.id.0, pack.head.0].concat()))?;
        self.table.iter().try_for_each(|entry| out.put(&encode(entry)))?;
        out.finish()?.replace(&layout.index())
    }
}

fn encode(entry: Entry) -> [u8; ENTRY_BYTES as usize] {
    let mut bytes = [0; ENTRY_BYTES as usize];
    bytes[..8].copy_from_slice(&entry.beginning.to_be_bytes());
    bytes[8..12].copy_from_slice(&entry.pack.to_le_bytes());
    bytes[12..].copy_from_slice(&entry.position.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; ENTRY_BYTES as usize]) -> Entry {
    let [b0, b1, b2, b3, b4, b5, b6, b7, p0, p1, p2, p3, o0, o1, o2, o3] = *bytes;
    Entry {
        beginning: u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        pack: u32::from_le_bytes([p0, p1, p2, p3]),
        position: u32::from_le_bytes([o0, o1, o2, o3]),
    }
}

/// A file that is written front to back, with a checksum of it.
struct Output {
    file: NewFile,
    piece: Vec<u8>,
    offset: u64,
    check: Xxh3,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.check.update(&self.piece);
        self.file.write_at(&self.piece, self.offset)?;
        self.offset += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Ends with the checksum of all before it.
    fn finish(mut self) -> Result<NewFile, Error> {
        self.flush()?;
        self.file.write_at(&self.check.digest().to_le_bytes(), self.offset)?;
        Ok(self.file)
    }
}

fn read(path: &Path) -> Result<PageIndex, Error> {
    let file = File::open(path).at("open", path)?;
    let bytes = file.metadata().at("look at", path)?.len();
    let mut input = Input { file, piece: vec![0; PIECE], check: Xxh3::new() };
    let header = input.take(HEADER_BYTES as usize).at("read", path)?;
    let (packs, entries) = counts(header, bytes).map_err(|defect| defect.of(path))?;
    let mut index = PageIndex { table: Table::with_room(entries as usize), ..PageIndex::default() };
    for_each_piece(&mut input, u64::from(packs) * PACK_BYTES, &mut |piece| {
        for [id, head] in piece.as_chunks().0.as_chunks().0 {
            let (id, head) = (PackId(*id), HeadHash(*head));
            index.push(Arc::new(Known { id, is_condemned: false, head, opened: OnceLock::new() }));
        }
    })
    .at("read", path)?;
    let (mut next, mut last, mut is_sound) = (0, 0, index.numbers.len() == packs as usize);
    for_each_piece(&mut input, entries * ENTRY_BYTES, &mut |piece| {
        for entry in piece.as_chunks().0.iter().map(decode) {
            is_sound &= entry.beginning >= last && entry.pack < packs;
            last = entry.beginning;
            next = index.table.append(next, entry);
        }
    })
    .at("read", path)?;
    let check = input.check.digest().to_le_bytes();
    is_sound &= input.take(CHECK_BYTES as usize).at("read", path)? == check;
    if is_sound { Ok(index) } else { Err(Error::damaged(path, "it is not what was written")) }
}

/// How many packs and entries there are in a file of so many bytes.
fn counts(header: &[u8], bytes: u64) -> Result<(u32, u64), Defect> {
    let mut parser = Parser(header);
    let (magic, version) = (parser.array::<8>()?, parser.u32()?);
    let (packs, entries) = (parser.u32()?, parser.u64()?);
    if magic == MAGIC && version > VERSION {
        return Err(Defect::NewerFormat(version));
    }
    let expected = HEADER_BYTES + PACK_BYTES * u64::from(packs) + CHECK_BYTES;
    let sound = entries.checked_mul(ENTRY_BYTES).and_then(|all| all.checked_add(expected)) == Some(bytes);
    if (magic, version) != (MAGIC, VERSION) || !sound {
        return Err(Defect::new("its header is not the one that was written"));
    }
    Ok((packs, entries))
}

/// A file that is read front to back, with a checksum of it.
struct Input {
    file: File,
    piece: Vec<u8>,
    check: Xxh3,
}

impl Input {
    /// The next bytes, at most a piece.
    fn take(&mut self, bytes: usize) -> io::Result<&[u8]> {
        let piece = &mut self.piece[..bytes];
        self.file.read_exact(piece)?;
        self.check.update(piece);
        Ok(piece)
    }
}

fn for_each_piece(input: &mut Input, bytes: u64, work: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE as u64);
        work(input.take(now as usize)?);
        left -= now;
    }
    Ok(())
}
