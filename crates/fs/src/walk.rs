//! A walk through one or two trees of directories at once, name by name.

use std::cmp::Ordering;
use std::rc::Rc;

use roaring::RoaringBitmap;

use crate::error::{Error, Result, damaged};
use crate::ext4::{Ext4, Inode, Listing};

/// The longest path, in bytes: what Linux opens by its name.
const LONGEST_PATH: usize = 4096;
/// What the directories that are open at a time may take of memory, in bytes.
const MOST_HELD: usize = 256 << 20;

/// One of the two trees, and the directories that were seen in it.
pub(crate) struct Side<'a> {
    pub(crate) fs: &'a Ext4<'a>,
    seen: RoaringBitmap,
}

impl<'a> Side<'a> {
    pub(crate) fn new(fs: &'a Ext4<'a>) -> Side<'a> {
        Side { fs, seen: RoaringBitmap::new() }
    }

    /// The entries of a directory that is to be seen only once.
    fn enter(&mut self, directory: &Inode) -> Result<()> {
        if self.seen.insert(directory.number) {
            return Ok(());
        }
        damaged(format!("directory {} is found in two places", directory.number))
    }
}

/// What has a name in one of the trees, or in both.
pub(crate) struct Named {
    pub(crate) before: Option<u32>,
    pub(crate) after: Option<u32>,
}

/// A directory in one of the trees, or in both, as far as it was looked at.
struct Open {
    listings: [Option<Rc<Listing>>; 2],
    next: [usize; 2],
    path: usize,
}

impl Open {
    /// Appends the next name to `path`.
    fn next(&mut self, path: &mut Vec<u8>) -> Option<Named> {
        let entry = |side: usize| self.listings[side].as_ref()?.get(self.next[side]);
        let (before, after) = (entry(0), entry(1));
        let order = match (before, after) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let before = before.filter(|_| order.is_le());
        let after = after.filter(|_| order.is_ge());
        let (name, _) = before.or(after)?;
        path.truncate(self.path);
        path.push(b'/');
        path.extend_from_slice(name);
        let named = Named { before: before.map(|(_, inode)| inode), after: after.map(|(_, inode)| inode) };
        self.next[0] += usize::from(named.before.is_some());
        self.next[1] += usize::from(named.after.is_some());
        Some(named)
    }

    /// The memory it takes. What both sides share counts twice.
    fn bytes(&self) -> usize {
        self.listings.iter().flatten().map(|listing| listing.bytes()).sum()
    }
}

/// Where a walk is.
#[derive(Default)]
pub(crate) struct Walk {
    path: Vec<u8>,
    open: Vec<Open>,
    held: usize,
}

impl Walk {
    /// The path of what was come by last, beginning with `/`.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What comes next: after a directory that was entered what is in there, by name.
    pub(crate) fn next(&mut self) -> Option<Named> {
        loop {
            let open = self.open.last_mut()?;
            match open.next(&mut self.path) {
                Some(named) => return Some(named),
                None => {
                    self.held -= open.bytes();
                    self.open.pop();
                }
            }
        }
    }

    /// Enters the directory that was come by last. `is_same` says that it has the same entries on both sides.
    pub(crate) fn enter<'a>(
        &mut self,
        sides: [Option<(&mut Side<'a>, &Inode)>; 2],
        is_same: bool,
    ) -> Result<()> {
        if self.path.len() > LONGEST_PATH {
            return Err(Error::TooMuch("directories are too deep in each other"));
        }
        let mut listings = [None, None];
        for (index, side) in sides.into_iter().enumerate() {
            let Some((side, directory)) = side else { continue };
            side.enter(directory)?;
            listings[index] = match &listings[0] {
                Some(same) if is_same => Some(Rc::clone(same)),
                _ => Some(Rc::new(side.fs.listing(directory)?)),
            };
        }
        let open = Open { listings, next: [0, 0], path: self.path.len() };
        self.held += open.bytes();
        if self.held > MOST_HELD {
            return Err(Error::TooMuch("directories have too many entries"));
        }
        self.open.push(open);
        Ok(())
    }
}
