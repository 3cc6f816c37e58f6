//! Two states of a file system: which files were added, removed or changed.
//!
//! Both trees are walked at once, name by name, and inodes compared. Of the content of a file nothing is read where the
//! pages under it are the same, and else no more than the first block that differs: so whether a file changed does not
//! depend on what its times say, and takes time in proportion to the number of files and not to their size.
//!
//! Where two file systems have nothing to do with each other (another one was made, or it lies elsewhere), pages tell
//! nothing: then a file counts as changed when its size or time differs.
//!
//! What is bounded: a directory (64 MiB), those open at a time (256 MiB), a path (4 KiB), the journal, and [`Steps`](crate::Steps).

use std::ops::ControlFlow;

use watari_types::{PAGE_SIZE, PageSet};

use crate::error::Result;
use crate::ext4::{Ext4, Inode, Kind, ROOT, Run};
use crate::walk::{Named, Side, Walk};

/// What a file is at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// What kind of file.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its permissions, with the set-id and sticky bits.
    pub mode: u16,
    /// Who owns it.
    pub uid: u32,
    /// The group that does.
    pub gid: u32,
    /// When its content changed last, in seconds since 1970.
    pub modified_unix_s: i64,
}

/// What of a file differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// It is another kind of file now.
    pub kind: bool,
    /// Its content, a link's target, or a device's numbers; or another file of that name took its place.
    pub content: bool,
    /// Its permissions.
    pub mode: bool,
    /// Its owner or group.
    pub owner: bool,
    /// Its times, or what else changes these: attributes, links to it.
    pub times: bool,
}

/// A file that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was; `None` if it was not there.
    pub before: Option<FileState>,
    /// What it is; `None` if it is gone.
    pub after: Option<FileState>,
    /// What differs. Nothing of a file that is in one only.
    pub what: What,
}

/// Whoever is told.
pub trait Listener {
    /// A file is not the same in both. `path` begins with `/`; its bytes are as the guest wrote them.
    fn change(&mut self, path: &[u8], change: Change);

    /// So many files were looked at.
    fn looked_at(&mut self, files: u64);
}

/// Tells `listener` of every file that differs, in the order of names, each directory before what is in it. `before` or
/// `after` can be missing: then every file is new, or gone. `changed` are the pages of the disk that differ.
///
/// A directory whose entries changed is not itself a change; its mode and owner are looked at, its times are not.
///
/// # Errors
/// One of the two cannot be read to its end; what was told until then is true.
pub fn compare(
    before: Option<&Ext4<'_>>,
    after: Option<&Ext4<'_>>,
    changed: &PageSet,
    listener: &mut dyn Listener,
) -> Result<()> {
    let are_comparable = matches!((before, after), (Some(a), Some(b)) if a.is_comparable_with(b));
    let sides = [before.map(Side::new), after.map(Side::new)];
    Comparison { sides, changed: are_comparable.then_some(changed), walk: Walk::default(), listener }.run()
}

struct Comparison<'a> {
    sides: [Option<Side<'a>>; 2],
    /// The pages that differ, if they tell anything.
    changed: Option<&'a PageSet>,
    walk: Walk,
    listener: &'a mut dyn Listener,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<()> {
        let root = |side: &Option<Side<'_>>| side.as_ref().map(|_| ROOT);
        self.look_at(&Named { before: root(&self.sides[0]), after: root(&self.sides[1]) })?;
        let mut files = 0;
        while let Some(named) = self.walk.next() {
            self.look_at(&named)?;
            files += 1;
            if files % 1024 == 0 {
                self.listener.looked_at(files);
            }
        }
        self.listener.looked_at(files);
        Ok(())
    }

    /// Compares what has a name, and enters it if it is a directory.
    fn look_at(&mut self, named: &Named) -> Result<()> {
        let inode = |side: usize, number: Option<u32>| match (&self.sides[side], number) {
            (Some(side), Some(number)) => side.fs.inode(number).map(Some),
            _ => Ok(None),
        };
        let (before, after) = (inode(0, named.before)?, inode(1, named.after)?);
        let is_directory =
            |inode: &Option<Inode>| inode.as_ref().is_some_and(|inode| inode.kind == Kind::Directory);
        let content_differs = match (&before, &after) {
            (Some(a), Some(b)) if a.kind == b.kind => self.content_differs(a, b)?,
            _ => false,
        };
        if let Some(change) = change(before.as_ref(), after.as_ref(), content_differs) {
            let path = self.walk.path();
            self.listener.change(if path.is_empty() { b"/" } else { path }, change);
        }
        if is_directory(&before) || is_directory(&after) {
            let directory = |inode: Option<Inode>| inode.filter(|inode| inode.kind == Kind::Directory);
            let (before, after) = (directory(before), directory(after));
            let is_same = self.changed.is_some() && before.is_some() && after.is_some() && !content_differs;
            let [one, other] = &mut self.sides;
            self.walk
                .enter([one.as_mut().zip(before.as_ref()), other.as_mut().zip(after.as_ref())], is_same)?;
        }
        Ok(())
    }

    /// Whether the content of two files of the same kind differs; or, where pages tell nothing, whether it seems to.
    fn content_differs(&self, before: &Inode, after: &Inode) -> Result<bool> {
        let ([Some(one), Some(other)], Some(changed)) = (&self.sides, self.changed) else {
            let is_device = matches!(before.kind, Kind::CharacterDevice | Kind::BlockDevice);
            return Ok(before.bytes != after.bytes
                || (before.kind != Kind::Directory && before.modified != after.modified)
                || (is_device && before.place != after.place));
        };
        let place = |inode: &Inode| (inode.bytes, inode.place, inode.has_extents);
        if place(before) != place(after) {
            return Ok(true);
        }
        let pair = Pair { before: one.fs, after: other.fs, changed };
        let flow = one.fs.each_run(before, &mut |run| {
            let (first, count) = match run {
                Run::Data { first, count, .. } => (first, count),
                Run::Tree { block } => (block, 1),
            };
            Ok(if pair.differs(first, count)? { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(flow.is_break())
    }
}

/// Two states of one file system, and the pages of the disk that differ.
struct Pair<'a> {
    before: &'a Ext4<'a>,
    after: &'a Ext4<'a>,
    changed: &'a PageSet,
}

impl Pair<'_> {
    /// Whether any of `count` blocks from `first` on differs. Reads only those that may.
    fn differs(&self, first: u64, count: u64) -> Result<bool> {
        let (size, page) = (self.before.block_size(), PAGE_SIZE as u64);
        let end = first.saturating_add(count);
        let byte = |block: u64| self.before.start().saturating_add(block.saturating_mul(size));
        let pages = |byte: u64| u32::try_from(byte).unwrap_or(u32::MAX);
        let mut next = first;
        for changed in self.changed.within(pages(byte(first) / page)..pages(byte(end).div_ceil(page))) {
            let within = |byte: u64| byte.saturating_sub(self.before.start());
            let from = (within(u64::from(changed) * page) / size).max(next);
            let to = within((u64::from(changed) + 1) * page).div_ceil(size).min(end);
            for block in from..to {
                if self.block_differs(block)? {
                    return Ok(true);
                }
            }
            next = to.max(next);
        }
        for fs in [self.before, self.after] {
            for block in fs.logged_within(first, end) {
                if self.block_differs(block)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn block_differs(&self, block: u64) -> Result<bool> {
        Ok(self.before.block(block)? != self.after.block(block)?)
    }
}

/// How a file differs, if it does.
fn change(before: Option<&Inode>, after: Option<&Inode>, content_differs: bool) -> Option<Change> {
    let what = match (before, after) {
        (Some(before), Some(after)) => what_differs(before, after, content_differs)?,
        _ => What::default(),
    };
    let (before, after) = (before.map(state), after.map(state));
    Some(Change { before, after, what })
}

fn what_differs(before: &Inode, after: &Inode, content_differs: bool) -> Option<What> {
    let is_directory = before.kind == Kind::Directory && after.kind == Kind::Directory;
    let what = What {
        kind: before.kind != after.kind,
        content: content_differs && !is_directory,
        mode: before.mode != after.mode,
        owner: (before.uid, before.gid) != (after.uid, after.gid),
        times: !is_directory && (before.modified, before.changed) != (after.modified, after.changed),
    };
    (what != What::default()).then_some(what)
}

fn state(inode: &Inode) -> FileState {
    FileState {
        kind: inode.kind,
        bytes: inode.bytes,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        modified_unix_s: inode.modified_unix_s(),
    }
}
