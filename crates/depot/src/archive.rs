//! A store in one file, which only grows: a tar archive of what would be the store's folder, where of several members of
//! one name the last counts.
//!
//! A member is there once its header is: content is written behind where the header will be, and synced, while zeros in
//! the header's place still end the archive. So whatever instant it is cut at, it holds all members before, whole, and the
//! next one is written over what there is of the one that was not finished.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use tar::{EntryType, Header};
use watari_store::{Files, ReadAt};

use crate::folder::{Part, copy, sync};
use crate::sealed::KEY;

const BLOCK: u64 = 512;
/// What every store has.
const FORMAT: &str = "format";
/// What stands in front of a member whose name does not fit into its header (GNU's way).
const LONG_NAME: &str = "././@LongLink";
/// Longer names are nobody's.
const MOST_NAME: u64 = 4096;
/// Of a header's magic, `ustar`, the last letter. Both this and the first of the name are there once it is written.
const LAST_OF_MAGIC: usize = 261;

/// One file with the files of a store in it. Who writes to it is alone with it.
pub(crate) struct Archive {
    file: File,
    folder: PathBuf,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Where the content of each begins, and its length.
    places: BTreeMap<String, (u64, u64)>,
    /// Where the next header goes.
    end: u64,
}

impl Archive {
    /// Opens the file, or begins it unless it is only read.
    pub(crate) fn new(path: &Path, is_fixed: bool) -> io::Result<Archive> {
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let file = match is_fixed {
            true => File::open(path)?,
            false => {
                let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
                flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
                    rustix::io::Errno::WOULDBLOCK => io::Error::other("somebody else is writing to it"),
                    e => e.into(),
                })?;
                sync(&folder)?;
                file
            }
        };
        let members = Members::read(&file)?;
        let is_ours = members.places.keys().any(|name| name == FORMAT || name == KEY);
        let is_new = members.places.is_empty() && is_blank(&file)?;
        if !is_ours && !is_new {
            return Err(io::Error::other("it is there already, and not an export"));
        }
        Ok(Archive { file, folder, members: Mutex::new(members) })
    }
}

impl Members {
    /// Reads the headers, as far as there are any.
    fn read(file: &File) -> io::Result<Members> {
        let mut members = Members::default();
        let length = file.metadata()?.len();
        let (mut at, mut long_name) = (0, None);
        while let Some((header, bytes)) = header_at(file, at)? {
            let start = at + BLOCK;
            let Some(end) =
                bytes.checked_next_multiple_of(BLOCK).and_then(|padded| padded.checked_add(start))
            else {
                break;
            };
            // The last one's padding may be missing.
            if start + bytes > length {
                break;
            }
            at = end;
            if header.entry_type() == EntryType::GNULongName && bytes <= MOST_NAME {
                let mut name = vec![0; bytes as usize];
                file.read_exact_at(&mut name, start)?;
                long_name = Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
                continue;
            }
            let name = match long_name.take() {
                Some(name) => name,
                None => String::from_utf8_lossy(&header.path_bytes()).into_owned(),
            };
            if header.entry_type() == EntryType::Regular {
                members.places.insert(name, (start, bytes));
            }
            members.end = end;
        }
        Ok(members)
    }
}

/// Whether a file is empty, or begins as one does that was cut before its first member was there.
fn is_blank(file: &File) -> io::Result<bool> {
    let mut block = [0; BLOCK as usize];
    let length = file.metadata()?.len().min(BLOCK) as usize;
    file.read_exact_at(&mut block[..length], 0)?;
    Ok(block.iter().all(|byte| *byte == 0))
}

/// The header there, and the length of what follows it; none at the end of the archive, and where a header was being written.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it was written and is another now: what follows would seem not to be there, and be
/// written over.
fn header_at(file: &File, at: u64) -> io::Result<Option<(Header, u64)>> {
    let mut block = [0; BLOCK as usize];
    match file.read_exact_at(&mut block, at) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let header = Header::from_byte_slice(&block).clone();
    let mut summed = header.clone();
    summed.set_cksum();
    let is_sound = header.cksum().is_ok_and(|sum| summed.cksum().is_ok_and(|right| right == sum));
    if !is_sound && at > 0 && block[0] != 0 && block[LAST_OF_MAGIC] != 0 {
        let what = format!("the header at byte {at} is not the one that was written");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(is_sound.then(|| header.size().ok()).flatten().map(|bytes| (header, bytes)))
}

fn header(name: &str, bytes: u64, kind: EntryType) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_entry_type(kind);
    header.set_cksum();
    Ok(header)
}

impl Files for Archive {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let members = self.members.lock();
        let below = |name: &String| {
            let rest = name.strip_prefix(folder)?.strip_prefix('/')?;
            Some(rest.split('/').next()?.to_owned())
        };
        let mut names: Vec<String> = members.places.keys().filter_map(below).collect();
        names.dedup();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        let (start, bytes) = self.members.lock().places.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Part { file: self.file.try_clone()?, start, bytes }))
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        let mut members = self.members.lock();
        if !may_replace && members.places.contains_key(name) {
            return Ok(false);
        }
        let mut at = members.end;
        // Whatever is left here of a member that was not finished ends nothing and is none.
        self.file.set_len(at)?;
        let mut headers = Vec::new();
        let last = match header(name, bytes, EntryType::Regular) {
            Ok(header) => header,
            Err(_) => {
                let long = [name.as_bytes(), &[0]].concat();
                headers.push((at, header(LONG_NAME, long.len() as u64, EntryType::GNULongName)?));
                self.file.write_all_at(&long, at + BLOCK)?;
                at += BLOCK + (long.len() as u64).next_multiple_of(BLOCK);
                let short = name.char_indices().nth(80).map_or(name, |(end, _)| &name[..end]);
                header(short, bytes, EntryType::Regular)?
            }
        };
        headers.push((at, last));
        let start = at + BLOCK;
        let end = start + bytes.next_multiple_of(BLOCK);
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        copy(content, bytes, &mut file)?;
        // And the two blocks of zeros that end an archive.
        self.file.set_len(end + 2 * BLOCK)?;
        self.file.sync_all()?;
        // The first of two last: as long as it is not there, neither is there.
        for (at, header) in headers.iter().rev() {
            self.file.write_all_at(header.as_bytes(), *at)?;
            self.file.sync_all()?;
        }
        members.places.insert(name.to_owned(), (start, bytes));
        members.end = end;
        Ok(true)
    }

    fn spool(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.folder)
    }
}
