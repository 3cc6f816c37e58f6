//! A pack without its frames: what is read when it is opened. Of a pack that is far away that is fetched with one request,
//! and remembered nearby, as a pack never changes.

use std::io;
use std::path::Path;

use super::format::{FOOTER_BYTES, Footer, HEADER_BYTES, MIN_BYTES, PackId};
use crate::elsewhere::ReadAt;
use crate::error::Error;
use crate::files::OpenFile;
use crate::layout::Layout;

/// A longer index (of two million pages) is read piece by piece, and not remembered.
const LONGEST: u64 = 64 << 20;
const LENGTH_BYTES: usize = 8;

/// The first bytes of a pack, and all from its index on. As bytes: the pack's length, and these.
pub(super) struct Outline(Vec<u8>);

/// Opens a pack to read all of it but its frames.
pub(super) fn open(layout: &Layout, path: &Path, id: PackId) -> Result<OpenFile, Error> {
    if let Some(recalled) = recall(layout, path, id) {
        return Ok(recalled);
    }
    let file = layout.open(path)?;
    if !layout.is_elsewhere() {
        return Ok(file);
    }
    let Some(outline) = fetch(&file, path)? else { return Ok(file) };
    if outline.is_of(id) {
        layout.remember(path, &outline.0);
    }
    Ok(OpenFile::Elsewhere(Box::new(outline)))
}

/// Opens a pack to read a little of it, which is no frame: nothing is fetched for it.
pub(super) fn open_for_a_part(layout: &Layout, path: &Path, id: PackId) -> Result<OpenFile, Error> {
    recall(layout, path, id).map_or_else(|| layout.open(path), Ok)
}

fn recall(layout: &Layout, path: &Path, id: PackId) -> Option<OpenFile> {
    let outline = layout.recall(path).map(Outline).filter(|outline| outline.is_of(id))?;
    Some(OpenFile::Elsewhere(Box::new(outline)))
}

/// None if it is too long, or no pack, which whoever reads it finds out.
fn fetch(file: &OpenFile, path: &Path) -> Result<Option<Outline>, Error> {
    let bytes = file.bytes();
    if bytes < MIN_BYTES {
        return Ok(None);
    }
    let first = file.read_at(path, 0, HEADER_BYTES)?;
    let last = file.read_at(path, bytes - FOOTER_BYTES, FOOTER_BYTES)?;
    let begins = match Footer::decode(&first, &last, bytes) {
        Ok(footer) if bytes - footer.index_offset <= LONGEST => footer.index_offset,
        _ => return Ok(None),
    };
    let rest = file.read_at(path, begins, bytes - FOOTER_BYTES - begins)?;
    Ok(Some(Outline([&bytes.to_le_bytes()[..], &first, &rest, &last].concat())))
}

impl Outline {
    fn rest(&self) -> &[u8] {
        self.0.get(LENGTH_BYTES + HEADER_BYTES as usize..).unwrap_or_default()
    }

    fn header(&self) -> &[u8] {
        self.0.get(LENGTH_BYTES..LENGTH_BYTES + HEADER_BYTES as usize).unwrap_or_default()
    }

    /// Whether it is sound, and its index the one that the pack is named after.
    fn is_of(&self, id: PackId) -> bool {
        let Some(end) = self.rest().len().checked_sub(FOOTER_BYTES as usize) else { return false };
        let (index, last) = self.rest().split_at(end);
        let footer = Footer::decode(self.header(), last, self.bytes());
        footer.is_ok_and(|footer| footer.id == id) && *blake3::hash(index).as_bytes() == id.0
    }
}

impl ReadAt for Outline {
    fn bytes(&self) -> u64 {
        self.0.first_chunk::<LENGTH_BYTES>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let begins = self.bytes().saturating_sub(self.rest().len() as u64);
        let (from, part) = match offset.checked_sub(begins) {
            Some(from) => (from, self.rest()),
            None => (offset, self.header()),
        };
        let end = from.checked_add(into.len() as u64);
        let found = end.and_then(|end| part.get(usize::try_from(from).ok()?..usize::try_from(end).ok()?));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
