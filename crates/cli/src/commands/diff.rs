//! `watari diff`

use clap::Args;
use watari_node::api::{
    ComparedInfo, Difference, FileAspect, FileChange, FileDifference, RegionDifference, VolumeDifference,
};

use super::Context;
use crate::args::revision;
use crate::failure::Result;
use crate::format::{bytes, count, path};
use crate::table::Table;

/// Files that are listed for people.
const MOST_FILES: usize = 200;

/// Show how two snapshots differ: pages, and on ext4 which files
///
/// With one REV, shows what changed since the snapshot it follows.
///
/// Disks are compared as the guest had written them: what was only in its page cache is not seen, and a file that was
/// renamed is removed and added. Files are found on ext2, ext3 and ext4, on partitions (GPT or MBR) and on whole disks.
#[derive(Args)]
pub(crate) struct Diff {
    /// The snapshot; with a second one, the one that is compared with that
    #[arg(value_name = "REV")]
    first: String,
    /// The other snapshot, normally the later one
    #[arg(value_name = "REV")]
    second: Option<String>,
}

impl Diff {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        revision(&self.first)?;
        let path = match &self.second {
            None => format!("snapshots/{}/diff", self.first),
            Some(second) => {
                revision(second)?;
                format!("snapshots/{second}/diff?from={}", self.first)
            }
        };
        let difference: Difference = context.client()?.get(&path)?;
        context.out.result(&difference, text)
    }
}

fn text(difference: &Difference) -> String {
    let before = difference.before.as_ref().map_or_else(|| "nothing".to_owned(), label);
    let mut text = format!("{before} → {}\n", label(&difference.after));
    if difference.regions.is_empty() {
        return text + "nothing differs";
    }
    let mut table = Table::new(&["REGION", "PAGES", "BYTES", ""], &[1, 2]);
    difference.regions.iter().for_each(|region| table.row(region_cells(region)));
    text += &table.render();
    let mut room = MOST_FILES;
    for disk in &difference.disks {
        for volume in &disk.volumes {
            text += &volume_text(&disk.name, volume, &mut room);
        }
    }
    text
}

fn label(snapshot: &ComparedInfo) -> String {
    format!("{}@{}", snapshot.name, snapshot.generation)
}

fn region_cells(region: &RegionDifference) -> [String; 4] {
    let note = match (region.bytes_before, region.bytes_after) {
        (None, _) => "new".to_owned(),
        (_, None) => "gone".to_owned(),
        (Some(before), Some(after)) if before != after => {
            format!("was {}, is {}", bytes(before), bytes(after))
        }
        _ => String::new(),
    };
    [region.name.clone(), region.changed_pages.to_string(), bytes(region.changed_bytes), note]
}

/// What there is to say about a volume, with as many of its files as there is room for.
fn volume_text(disk: &str, volume: &VolumeDifference, room: &mut usize) -> String {
    let partition = volume.partition.map(|number| format!(", partition {number}")).unwrap_or_default();
    let system = volume.file_system.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let mut text = format!("\n{disk}{partition}{system}: {}\n", summary(volume));
    let listed = &volume.files[..volume.files.len().min(*room)];
    *room -= listed.len();
    if !listed.is_empty() {
        let mut table = Table::new(&["CHANGE", "SIZE", "FILE"], &[1]);
        listed.iter().for_each(|file| table.row(file_cells(file)));
        text += &table.render();
    }
    match volume.files.len() - listed.len() {
        0 => {}
        more => text += &format!("… and {more} more, which --json lists\n"),
    }
    if volume.unlisted > 0 {
        text += &format!("… and {} that are not listed\n", count(volume.unlisted, "file"));
    }
    text
}

fn summary(volume: &VolumeDifference) -> String {
    let counts = [(volume.added, "added"), (volume.removed, "removed"), (volume.changed, "changed")];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match (&volume.problem, counts.is_empty()) {
        (None, true) => format!("no file differs, {} changed", count(volume.changed_pages, "page")),
        (None, false) => counts.join(", "),
        (Some(problem), true) => format!("{problem}, {} changed", count(volume.changed_pages, "page")),
        (Some(problem), false) => format!("{} ({problem})", counts.join(", ")),
    }
}

fn file_cells(file: &FileDifference) -> [String; 3] {
    let size = |of: &Option<watari_node::api::FileInfo>| of.as_ref().map(|file| bytes(file.bytes));
    let size = match (size(&file.before), size(&file.after)) {
        (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
        (before, after) => after.or(before).unwrap_or_default(),
    };
    let raw = file.path_hex.as_deref().and_then(unhex).unwrap_or_else(|| file.path.clone().into_bytes());
    [change(file), size, path(&raw)]
}

fn change(file: &FileDifference) -> String {
    match file.change {
        FileChange::Added => return "added".to_owned(),
        FileChange::Removed => return "removed".to_owned(),
        FileChange::Changed => {}
    }
    let word = |aspect: &FileAspect| match aspect {
        FileAspect::Kind => "kind",
        FileAspect::Content => "content",
        FileAspect::Mode => "mode",
        FileAspect::Owner => "owner",
        FileAspect::Times => "times",
    };
    // Times follow from all the rest.
    let said: Vec<&str> = file
        .what
        .iter()
        .filter(|aspect| file.what.len() == 1 || **aspect != FileAspect::Times)
        .map(word)
        .collect();
    said.join(",")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    digits.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
