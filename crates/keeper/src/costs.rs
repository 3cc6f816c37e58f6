//! What a machine's captures cost, for whoever looks at its history: a line of JSON each in `captures.jsonl`.
//!
//! It is told to people and nothing depends on it, so it is not synced, stays on this node, and what cannot be read of it is as
//! good as never written. Of a long history the beginning is forgotten.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use watari_types::SnapshotId;

use crate::home::MachineHome;
use crate::protocol::Checkpointed;

/// When the file is longer, half of it goes: of some ten thousand captures.
const LONGEST: u64 = 2 << 20;

/// What one capture cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// How long the guest was held.
    pub pause_ms: f64,
    /// From the request until the snapshot was durable.
    pub total_ms: f64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// Pages of RAM blocks whose content changed since the snapshot before.
    pub ram_pages: u64,
    /// Pages of disks whose content changed since then.
    pub disk_pages: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: SnapshotId,
    #[serde(flatten)]
    cost: Cost,
}

/// What the machine's captures cost, as far as that is still known.
pub fn read(home: &MachineHome) -> HashMap<SnapshotId, Cost> {
    let text = fs::read_to_string(file(home)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.map(|line| (line.id, line.cost)).collect()
}

/// Adds a capture.
pub(crate) fn note(home: &MachineHome, done: &Checkpointed) {
    let Checkpointed { id, pause_ms, total_ms, stored_bytes, ram_pages, disk_pages, .. } = *done;
    let line = Line { id, cost: Cost { pause_ms, total_ms, stored_bytes, ram_pages, disk_pages } };
    if let Err(error) = append(&file(home), &line) {
        tracing::warn!(%error, "what a capture cost is not noted");
    }
}

fn file(home: &MachineHome) -> PathBuf {
    home.folder().join("captures.jsonl")
}

fn append(path: &Path, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&text)?;
    if file.metadata()?.len() > LONGEST { halve(path) } else { Ok(()) }
}

fn halve(path: &Path) -> io::Result<()> {
    let text = fs::read(path)?;
    let (_, kept) = text.split_at(text.len() / 2);
    let begins = kept.iter().position(|byte| *byte == b'\n').map_or(kept.len(), |end| end + 1);
    let temporary = path.with_extension("new");
    fs::write(&temporary, &kept[begins..])?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u8) -> Line {
        let cost = Cost { pause_ms: 3.5, total_ms: 40.0, stored_bytes: 7, ram_pages: 2, disk_pages: 1 };
        Line { id: SnapshotId([number; 32]), cost }
    }

    fn ids(path: &Path) -> Vec<u8> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().id.0[0]).collect()
    }

    #[test]
    fn the_newest_half_is_what_remains_of_a_long_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captures.jsonl");
        for number in 1..=9 {
            append(&path, &line(number)).unwrap();
        }
        assert_eq!(ids(&path), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        halve(&path).unwrap();
        assert_eq!(ids(&path), [6, 7, 8, 9]);
        append(&path, &line(10)).unwrap();
        assert_eq!(ids(&path), [6, 7, 8, 9, 10]);
    }
}
