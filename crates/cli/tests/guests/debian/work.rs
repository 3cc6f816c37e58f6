//! A Debian guest at work on its ext4, and what a host finds that looks at a snapshot of its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::programs::{self, Running, ServedDisk, said};
use crate::lab::{Lab, wait_within};

const WORK: &str = include_str!("churn.py");
/// Where the guest has the program, and what it works on.
const PROGRAM: &str = "/root/churn.py";
const FOLDER: &str = "/root/work";
/// Under emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

/// A folder for what is large and not needed for long.
fn large_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Creates a machine with Debian on its disk, and the program for its work.
pub fn create(lab: &Lab, name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/debian-guest");
    let made = programs::program(path(&script), [""; 0]).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let folder = String::from_utf8(made.stdout).unwrap();
    let made = |name: &str| PathBuf::from(folder.trim_end()).join(name);

    let own = large_folder();
    let (image, work) = (own.path().join("disk.img"), own.path().join("churn.py"));
    programs::run("cp", ["--sparse=always", path(&made("disk.img")), path(&image)]);
    fs::write(&work, WORK).unwrap();
    programs::run("debugfs", ["-w", "-R", &format!("write {} {PROGRAM}", path(&work)), path(&image)]);
    // Once, folders are indexed that were large from the beginning. Then there is nothing left to improve.
    programs::run("e2fsck", ["-fy", path(&image)]);
    file_system_is_clean(&image);
    let (kernel, initrd) = (made("vmlinuz"), made("initrd.img"));
    let boot = ["--kernel", path(&kernel), "--initrd", path(&initrd)];
    let rest = ["--append", "root=/dev/vda console=ttyS0 quiet", "--memory", "256M"];
    lab.ok(&[&["create", name, "--image", path(&image)], &boot[..], &rest[..]].concat());
}

/// Boots it, and has the shell on its serial line begin the work. Returns when the first transaction is durable.
pub fn start(lab: &Lab, name: &str, seed: u64) {
    lab.ok(&["start", name]);
    wait_within(BOOT_LIMIT, "Debian's shell", || {
        lab.serial(name).contains("root@watari-guest").then_some(())
    });
    // The work never falls silent, so it is not waited for until it does.
    let mut terminal = lab.watari(&["console", name]);
    let terminal = terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut terminal = Running::start(terminal);
    let keys = format!("stty -echo; exec python3 {PROGRAM} work {FOLDER} {seed}\n");
    std::io::Write::write_all(terminal.0.stdin.as_mut().unwrap(), keys.as_bytes()).unwrap();
    lab.listen_from_start(name).wait_for("COMMIT 1.");
}

/// What a snapshot's disk holds.
pub struct OnDisk {
    revision: String,
    files: Contents,
    /// The last transactions that the two databases and the file beside them know of.
    pub counters: Vec<u64>,
}

impl OnDisk {
    /// Asks for what differs on another disk, and compares that with the files themselves.
    pub fn differs_as_told(&self, lab: &Lab, other: &OnDisk) {
        let told = lab.ok(&["diff", &self.revision, &other.revision]);
        let volumes =
            told["disks"].as_array().unwrap().iter().flat_map(|disk| disk["volumes"].as_array().unwrap());
        let volumes: Vec<&Value> = volumes.collect();
        assert!(
            volumes.iter().all(|volume| volume["problem"].is_null() && volume["unlisted"] == 0),
            "{told}"
        );
        let files: Vec<&Value> =
            volumes.iter().flat_map(|volume| volume["files"].as_array().unwrap()).collect();
        let paths = |is_told: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
            let paths = files.iter().filter(|file| is_told(file)).map(|file| file["path"].as_str().unwrap());
            paths.filter(|path| path.starts_with(FOLDER)).map(str::to_owned).collect()
        };
        let [before, after] = [&self.files, &other.files];
        let only = |in_one: &Contents, other: &Contents| -> BTreeSet<String> {
            in_one.keys().filter(|path| !other.contains_key(*path)).cloned().collect()
        };
        assert_eq!(paths(&|file| file["change"] == "added"), only(after, before), "{told}");
        assert_eq!(paths(&|file| file["change"] == "removed"), only(before, after), "{told}");
        // A file may also have been written anew with what it held.
        let aspect = |file: &Value| file["what"].as_array().unwrap().contains(&"content".into());
        let changed = paths(&|file| file["change"] == "changed" && aspect(file));
        let differs = |path: &&String| after.get(*path).is_some_and(|content| *content != before[*path]);
        let missed: Vec<&String> =
            before.keys().filter(differs).filter(|path| !changed.contains(*path)).collect();
        assert!(missed.is_empty(), "{missed:?}: {told}");
    }
}

/// Files, and folders, whose content is none.
type Contents = BTreeMap<String, Vec<u8>>;

/// What is in a folder, by paths that begin with `below`.
fn contents(folder: &Path, below: &str) -> Contents {
    let mut found = Contents::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.append(&mut contents(&entry.path(), &path));
            found.insert(path, Vec::new());
        } else {
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Checks a snapshot's disk as a host would that was given it after a loss of power: the journal is replayed and
/// nothing else is to be repaired, both databases and all durable files are whole.
pub fn on_disk(lab: &Lab, revision: &str) -> OnDisk {
    let own = large_folder();
    let (disk, content) = (own.path().join("disk"), own.path().join("content"));
    let served = ServedDisk::of(lab, revision);
    programs::run("nbdcopy", [&served.uri, path(&disk)]);
    drop(served);
    only_its_journal_is_replayed(&disk);
    file_system_is_clean(&disk);

    fs::create_dir(&content).unwrap();
    programs::run("debugfs", ["-R", &format!("rdump {FOLDER} {}", path(&content)), path(&disk)]);
    // The check lets SQLite recover the databases, which changes them.
    let files = contents(&content.join("work"), FOLDER);
    let program = own.path().join("churn.py");
    fs::write(&program, WORK).unwrap();
    let said = programs::run("python3", [path(&program), "check", path(&content.join("work"))]);
    let counters = said.trim().strip_prefix("COUNTERS ").unwrap_or_else(|| panic!("{said}"));
    let counters = counters.split(' ').map(|n| n.parse().unwrap()).collect();
    OnDisk { revision: revision.to_owned(), files, counters }
}

/// The first check of a file system that was in use: its journal is replayed.
fn only_its_journal_is_replayed(disk: &Path) {
    let output = programs::outcome("e2fsck", ["-fy", path(disk)]);
    let said = said(&output);
    let (name, mut lines) = (path(disk), said.lines());
    assert_eq!(output.status.code(), Some(1), "1: errors were corrected, here by the journal\n{said}");
    assert!(lines.any(|line| line == format!("{name}: recovering journal")), "{said}");
    let unexpected: Vec<&str> = said.lines().filter(|line| !belongs_to_a_replay(line, name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}\n{said}");
}

/// Whether e2fsck (1.47) says such a line about each ext4 that was in use when its power failed.
fn belongs_to_a_replay(line: &str, disk: &str) -> bool {
    let line = line.strip_prefix(disk).and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
    let after = |word| line.strip_prefix(word).unwrap_or_default();
    let is_summary = line.contains(" files (") && line.ends_with(" blocks");
    let is_pass = matches!(after("Pass ").as_bytes(), [b'1'..=b'5', b':', ..]);
    // Files that were removed and still open.
    let is_orphan = !after("Clearing orphaned inode ").is_empty();
    // Linux does not keep the totals in the superblock, only those of each group, which are checked.
    let is_total = line.ends_with(").")
        && (line.starts_with("Free blocks count wrong (") || line.starts_with("Free inodes count wrong ("));
    let others = ["", "recovering journal", "Fix? yes", "***** FILE SYSTEM WAS MODIFIED *****"];
    others.contains(&line) || line.starts_with("e2fsck 1.") || is_summary || is_pass || is_orphan || is_total
}

/// The check of a file system with which nothing is the matter.
fn file_system_is_clean(disk: &Path) {
    let said = programs::run("e2fsck", ["-fn", path(disk)]);
    assert!(!said.contains("? no"), "{said}");
}

#[test]
fn a_repair_is_not_taken_for_what_belongs_to_a_replay() {
    let replay = [
        "disk: recovering journal",
        "Clearing orphaned inode 12 (uid=0, gid=0, mode=0100600, size=0)",
        "Pass 5: Checking group summary information",
        "Free blocks count wrong (898506, counted=895974).",
        "Fix? yes",
        "disk: 14168/262144 files (0.2% non-contiguous), 152602/1048576 blocks",
    ];
    let repairs = [
        "Free blocks count wrong for group #3 (100, counted=99).",
        "Block bitmap differences:  -(1000--1003)",
        "Inode 12 ref count is 2, should be 1.",
        "Entry 'a' in /b (13) has deleted/unused inode 14.  Clear? yes",
        "Pass 3A: Optimizing directories",
        "other: recovering journal",
    ];
    assert!(replay.iter().all(|line| belongs_to_a_replay(line, "disk")));
    assert!(!repairs.iter().any(|line| belongs_to_a_replay(line, "disk")));
}
