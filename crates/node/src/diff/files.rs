//! The list of files that differ, as long as there is room for it.

use watari_fs::{Change, Ext4, FileState, Kind, Listener, What};
use watari_keeper::protocol::Progress;
use watari_types::{ErrorReport, PageSet, RegionName};

use crate::api::{FileAspect, FileChange, FileDifference, FileInfo, FileKind, VolumeDifference};
use crate::node::OnProgress;

/// Files that are listed in one answer.
const MOST_FILES: usize = 100_000;
/// Bytes that their paths may have.
const MOST_PATH_BYTES: usize = 16 << 20;

/// How many files an answer still has room for, whose disk ever they are on.
pub(super) struct Room {
    files: usize,
    path_bytes: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { files: MOST_FILES, path_bytes: MOST_PATH_BYTES }
    }
}

impl Room {
    /// Takes the room for one more, if there is any.
    fn take(&mut self, path: &[u8]) -> bool {
        let fits = self.files > 0 && self.path_bytes >= path.len();
        if fits {
            self.files -= 1;
            self.path_bytes -= path.len();
        }
        fits
    }
}

/// What is done about the files of one volume.
pub(super) struct Files<'a> {
    step: String,
    room: &'a mut Room,
    progress: OnProgress<'a>,
}

impl<'a> Files<'a> {
    pub(super) fn new(disk: &RegionName, room: &'a mut Room, progress: OnProgress<'a>) -> Files<'a> {
        Files { step: format!("comparing the files of {disk}"), room, progress }
    }

    /// Completes what is told of a volume with its files.
    pub(super) fn compare(
        self,
        before: Option<&Ext4<'_>>,
        after: Option<&Ext4<'_>>,
        changed: &PageSet,
        told: VolumeDifference,
    ) -> VolumeDifference {
        let total = before.into_iter().chain(after).map(Ext4::used_inodes).max().unwrap_or_default();
        let mut list = List { told, total, files: self };
        let compared = watari_fs::compare(before, after, changed, &mut list);
        let mut told = list.told;
        if let Err(error) = compared {
            told.problem = Some(format!("{}; the list is not complete", ErrorReport::chain(&error)));
        }
        told
    }
}

/// A list that grows.
struct List<'a> {
    told: VolumeDifference,
    total: u64,
    files: Files<'a>,
}

impl Listener for List<'_> {
    fn change(&mut self, path: &[u8], change: Change) {
        let file = file(path, change);
        *match file.change {
            FileChange::Added => &mut self.told.added,
            FileChange::Removed => &mut self.told.removed,
            FileChange::Changed => &mut self.told.changed,
        } += 1;
        if self.files.room.take(path) {
            self.told.files.push(file);
        } else {
            self.told.unlisted += 1;
        }
    }

    fn looked_at(&mut self, files: u64) {
        let total = self.total.max(files);
        (self.files.progress)(Progress { step: self.files.step.clone(), done: files, total });
    }
}

fn file(path: &[u8], change: Change) -> FileDifference {
    let text = String::from_utf8_lossy(path);
    FileDifference {
        path_hex: std::str::from_utf8(path).is_err().then(|| hex::encode(path)),
        path: text.into_owned(),
        change: match (&change.before, &change.after) {
            (None, _) => FileChange::Added,
            (_, None) => FileChange::Removed,
            _ => FileChange::Changed,
        },
        what: aspects(change.what),
        before: change.before.map(info),
        after: change.after.map(info),
    }
}

fn aspects(what: What) -> Vec<FileAspect> {
    let all = [
        (what.kind, FileAspect::Kind),
        (what.content, FileAspect::Content),
        (what.mode, FileAspect::Mode),
        (what.owner, FileAspect::Owner),
        (what.times, FileAspect::Times),
    ];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, aspect)| aspect).collect()
}

fn info(state: FileState) -> FileInfo {
    FileInfo {
        kind: match state.kind {
            Kind::File => FileKind::File,
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::CharacterDevice => FileKind::CharacterDevice,
            Kind::BlockDevice => FileKind::BlockDevice,
            Kind::Pipe => FileKind::Pipe,
            Kind::Socket => FileKind::Socket,
        },
        bytes: state.bytes,
        mode: state.mode,
        uid: state.uid,
        gid: state.gid,
        modified_unix_s: state.modified_unix_s,
    }
}
