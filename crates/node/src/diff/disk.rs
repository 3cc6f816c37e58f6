//! A disk at two times: its partitions side by side.
//!
//! A partition is the same one if it has the same number and begins at the same place. What cannot be read is said and
//! keeps nothing else from being told.

use watari_fs::{Content, Ext4, Layout, Steps, Window, content, layout};
use watari_types::{ErrorReport, PAGE_SIZE, PageSet, PageTable, RegionName};

use super::files::{Files, Room};
use super::snapshot_disk::{Pages, SnapshotDisk};
use crate::api::{DiskDifference, VolumeDifference};
use crate::node::OnProgress;

/// What is said of a volume that is nothing known.
const NO_FILE_SYSTEM: &str = "no file system that is known";

/// A disk of a snapshot.
pub(super) struct Disk<'a>(SnapshotDisk<'a>);

impl<'a> Disk<'a> {
    pub(super) fn new(pages: &'a Pages<'a>, table: PageTable, bytes: u64) -> Disk<'a> {
        Disk(SnapshotDisk::new(pages, table, bytes))
    }

    /// What it is divided into, if it is there.
    fn volumes<'b>(this: &'b Option<Disk<'_>>) -> watari_fs::Result<Vec<Volume<'b>>> {
        let Some(disk) = this else { return Ok(Vec::new()) };
        Ok(match layout(&disk.0)? {
            Layout::Whole => vec![disk.volume(None, Window::all(&disk.0))],
            Layout::Partitions(partitions) => partitions
                .into_iter()
                .map(|found| disk.volume(Some(found.number), Window::of(&disk.0, found.start, found.bytes)))
                .collect(),
        })
    }

    fn volume<'b>(&'b self, partition: Option<u32>, window: Window<'b>) -> Volume<'b> {
        Volume { partition, window, steps: self.0.steps() }
    }
}

/// A partition, or all of a disk.
#[derive(Clone, Copy)]
struct Volume<'a> {
    partition: Option<u32>,
    window: Window<'a>,
    steps: &'a Steps,
}

impl Volume<'_> {
    fn key(&self) -> (u64, Option<u32>) {
        (self.window.start(), self.partition)
    }
}

/// How a disk differs. `sides` are before and after, where it is there; `changed` are the pages that differ.
pub(super) fn compare(
    name: &RegionName,
    sides: &[Option<Disk<'_>>; 2],
    changed: &PageSet,
    room: &mut Room,
    progress: OnProgress,
) -> DiskDifference {
    let mut found = Vec::new();
    match (Disk::volumes(&sides[0]), Disk::volumes(&sides[1])) {
        (Ok(before), Ok(after)) => {
            for [before, after] in side_by_side(before, after) {
                let changed_pages = pages_in([before, after], changed);
                if changed_pages == 0 && before.is_some() && after.is_some() {
                    continue;
                }
                let files = Files::new(name, room, progress);
                found.push(volume([before, after], changed_pages, changed, files));
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            found.push(VolumeDifference {
                problem: Some(ErrorReport::chain(&error)),
                ..nothing_known(changed.len())
            });
        }
    }
    DiskDifference { name: name.to_string(), volumes: found }
}

/// The same partitions, in the order in which they lie. A disk without a known content beside one with partitions has
/// none to tell of.
fn side_by_side<'a>(before: Vec<Volume<'a>>, after: Vec<Volume<'a>>) -> Vec<[Option<Volume<'a>>; 2]> {
    let mut keys: Vec<_> = before.iter().chain(&after).map(Volume::key).collect();
    keys.sort_unstable();
    keys.dedup();
    let pick = |from: &[Volume<'a>], key| from.iter().find(|volume| volume.key() == key).copied();
    let pairs: Vec<_> = keys.into_iter().map(|key| [pick(&before, key), pick(&after, key)]).collect();
    let is_nothing = |pair: &[Option<Volume<'a>>; 2]| match pair {
        [Some(only), None] | [None, Some(only)] => {
            only.partition.is_none() && matches!(content(&only.window), Ok(Content::Unknown))
        }
        _ => false,
    };
    match pairs.len() {
        0 | 1 => pairs,
        _ => pairs.into_iter().filter(|pair| !is_nothing(pair)).collect(),
    }
}

/// How many of the pages that differ lie in a volume.
fn pages_in(sides: [Option<Volume<'_>>; 2], changed: &PageSet) -> u64 {
    let start = sides.iter().flatten().map(|volume| volume.window.start()).min().unwrap_or_default();
    let end = sides.iter().flatten().map(|volume| volume.window.start() + volume.window.bytes()).max();
    let page = |page: u64| u32::try_from(page).unwrap_or(u32::MAX);
    let (first, end) = (start / PAGE_SIZE as u64, end.unwrap_or_default().div_ceil(PAGE_SIZE as u64));
    changed.within(page(first)..page(end)).count() as u64
}

fn nothing_known(changed_pages: u64) -> VolumeDifference {
    VolumeDifference {
        partition: None,
        file_system: None,
        changed_pages,
        problem: None,
        added: 0,
        removed: 0,
        changed: 0,
        files: Vec::new(),
        unlisted: 0,
    }
}

/// What a side of a volume turned out to be.
enum Found<'a> {
    /// It is not there.
    Nothing,
    Ext4(Box<Ext4<'a>>),
    /// Something that is not read: its name, if it has one.
    Other(Option<&'static str>),
}

fn look(volume: Option<Volume<'_>>) -> watari_fs::Result<Found<'_>> {
    let Some(volume) = volume else { return Ok(Found::Nothing) };
    Ok(match content(&volume.window)? {
        Content::Ext4 => Found::Ext4(Box::new(Ext4::open(volume.window, volume.steps)?)),
        Content::Other(name) => Found::Other(Some(name)),
        Content::Unknown => Found::Other(None),
    })
}

/// How a volume differs.
fn volume(
    sides: [Option<Volume<'_>>; 2],
    changed_pages: u64,
    changed: &PageSet,
    files: Files<'_>,
) -> VolumeDifference {
    let partition = sides.iter().flatten().find_map(|volume| volume.partition);
    let told = VolumeDifference { partition, ..nothing_known(changed_pages) };
    let [before, after] = match (look(sides[0]), look(sides[1])) {
        (Ok(before), Ok(after)) => [before, after],
        (Err(error), _) | (_, Err(error)) => {
            let file_system = Some("ext4".to_owned());
            return VolumeDifference { file_system, problem: Some(ErrorReport::chain(&error)), ..told };
        }
    };
    let named = |found: &Found<'_>| match found {
        Found::Ext4(fs) => Some(fs.name()),
        Found::Other(name) => *name,
        Found::Nothing => None,
    };
    let file_system = named(&after).or(named(&before)).map(str::to_owned);
    let told = VolumeDifference { file_system, problem: problem(&before, &after), ..told };
    let fs = |found| match found {
        Found::Ext4(fs) => Some(fs),
        _ => None,
    };
    match (fs(before), fs(after)) {
        (None, None) => told,
        (before, after) => files.compare(before.as_deref(), after.as_deref(), changed, told),
    }
}

/// What of the two is not read.
fn problem(before: &Found<'_>, after: &Found<'_>) -> Option<String> {
    let unread = |found: &Found<'_>| match found {
        Found::Other(name) => Some(name.unwrap_or(NO_FILE_SYSTEM)),
        _ => None,
    };
    match (unread(before), unread(after)) {
        (None, None) => None,
        (Some(before), Some(after)) if before != after => {
            Some(format!("{before} before and {after} now: not read"))
        }
        // What it is now is said beside it.
        (_, Some(NO_FILE_SYSTEM)) => Some(NO_FILE_SYSTEM.to_owned()),
        (_, Some(_)) => Some("not read".to_owned()),
        (Some(name), None) => Some(format!("{name} before: not read")),
    }
}
