//! The core of a snapshot, as the tools it is for read it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::lab::programs::{Running, run};
use crate::lab::small::Small;
use crate::lab::{Lab, kill, numbers, wait};

const STAMPS: &str = "watari.run=stamp watari.args=mem=32M,mem-rate=10,disk-rate=2";
const CPUS: usize = 2;
/// Below, the chipset shows parts of other regions.
const PLAIN_MEMORY: u64 = 1 << 20;

/// A machine with two CPUs and a snapshot of it at work, m@1.
fn machine_with_a_snapshot(lab: &Lab) {
    let create =
        ["create", "m", "--demo", "--memory", "128M", "--disk", "8M", "--cpus", "2", "--append", STAMPS];
    lab.ok(&create);
    lab.ok(&["start", "m"]);
    lab.listen_from_start("m").wait_for("STAMP pass=1");
    lab.ok(&["checkpoint", "m"]);
}

/// Main memory as it is in the snapshot, read by other code, which need not hash it: it is compared.
fn memory_of(lab: &Lab, rev: &str) -> Vec<u8> {
    let folder = lab.home().join("regions");
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/watari-read");
    let store = lab.home().join("store");
    run("python3", [reader, "--trust", store.to_str().unwrap(), rev, "--to", folder.to_str().unwrap()]);
    fs::read(folder.join("ram-m0.raw")).unwrap()
}

/// What readelf says of the segments of memory: offset in the file, physical address, length.
fn segments(core: &Path) -> Vec<[u64; 3]> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let said = run("readelf", ["-lW", core.to_str().unwrap()]);
    let loads = said.lines().filter(|line| line.trim_start().starts_with("LOAD"));
    loads
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [words[1], words[3], words[4]].map(number)
        })
        .collect()
}

fn gdb(core: &Path, commands: &[&str]) -> String {
    let commands = commands.iter().flat_map(|command| ["-ex", *command]);
    run("gdb", ["-nx", "-batch", "-c", core.to_str().unwrap()].into_iter().chain(commands))
}

fn nothing_is_left(lab: &Lab, folder: &Path) {
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "left in {}", folder.display());
    assert!(ephemerals(lab).is_empty(), "{:?}", ephemerals(lab));
}

fn ephemerals(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.home().join("run/.ephemeral")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn a_core_has_the_registers_of_each_cpu_and_every_page_of_the_snapshot_at_its_place() {
    let lab = Lab::new();
    machine_with_a_snapshot(&lab);
    let path = lab.home().join("core");
    let before = (lab.ok(&["list"])["machines"].as_array().unwrap().len(), lab.generations("m"));
    let written = lab.ok(&["core", "m@1", path.to_str().unwrap()]);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((&written["path"], &written["bytes"]), (&path.to_str().unwrap().into(), &found.len().into()));
    assert_eq!(found.mode() & 0o777, 0o600, "it holds all secrets of the guest");
    assert_eq!(written["allocated_bytes"], found.blocks() * 512);
    assert!(found.blocks() * 512 < found.len(), "zero pages take space: {written}");
    assert_eq!(before, (lab.ok(&["list"])["machines"].as_array().unwrap().len(), lab.generations("m")));
    assert!(ephemerals(&lab).is_empty());

    let notes = run("readelf", ["-n", path.to_str().unwrap()]);
    assert_eq!(notes.matches("NT_PRSTATUS").count(), CPUS, "{notes}");
    let said = gdb(&path, &["info threads", "thread apply all print/x $rip"]);
    let rips: Vec<&str> = said.lines().filter(|line| line.starts_with('$')).collect();
    assert_eq!(rips.len(), CPUS, "{said}");
    assert!(rips.iter().all(|rip| !rip.ends_with("= 0x0")), "{said}");

    let (memory, core, segments) = (memory_of(&lab, "m@1"), File::open(&path).unwrap(), segments(&path));
    let place = |address: u64| {
        let [offset, start, _] =
            segments.iter().find(|[_, start, length]| (*start..start + length).contains(&address)).unwrap();
        offset + address - start
    };
    let mut page = [0; 4096];
    for address in (PLAIN_MEMORY..memory.len() as u64).step_by(4096) {
        core.read_exact_at(&mut page, place(address)).unwrap();
        assert!(page == memory[address as usize..][..4096], "the page at {address:#x} is another one");
    }
    let stamp =
        (PLAIN_MEMORY as usize..memory.len()).step_by(4096).find(|at| memory[*at..].starts_with(b"WATARI01"));
    let said = gdb(&path, &[&format!("x/s {:#x}", stamp.unwrap())]);
    assert!(said.contains("WATARI01"), "{said}");

    // The machine has not noticed, and what is there is not replaced unasked.
    lab.listen("m").wait_for("STAMP pass");
    assert_eq!(lab.fails(&["core", "m", path.to_str().unwrap()])["kind"], "bad_request");
    assert_eq!(fs::metadata(&path).unwrap().ino(), found.ino());
    // One whose memory a clone shares.
    lab.ok(&["clone", "m@1", "c", "--start"]);
    lab.ok(&["core", "m@1", path.to_str().unwrap(), "--force"]);
    let again = File::open(&path).unwrap();
    for address in (PLAIN_MEMORY..memory.len() as u64).step_by(4096) {
        again.read_exact_at(&mut page, place(address)).unwrap();
        assert!(page == memory[address as usize..][..4096], "the page at {address:#x} is another one");
    }
}

#[test]
fn a_core_that_cannot_be_written_leaves_nothing_behind() {
    let lab = Lab::new();
    machine_with_a_snapshot(&lab);
    let nowhere = lab.home().join("nowhere/core");
    assert_eq!(lab.fails(&["core", "m", nowhere.to_str().unwrap()])["kind"], "io");
    assert!(ephemerals(&lab).is_empty());
    let folder = lab.home().join("cores");
    if let Some(_small) = Small::mount(lab.home(), "cores", "8M") {
        let error = lab.fails(&["core", "m", folder.join("core").to_str().unwrap()]);
        assert_eq!(error["kind"], "no_space", "{error}");
        nothing_is_left(&lab, &folder);
    }
    lab.listen("m").wait_until("to go on", |text| numbers(text, "STAMP pass=").len() > 1);
}

#[test]
fn what_a_killed_daemon_left_of_a_core_is_ended_and_removed_by_the_next_one() {
    let lab = Lab::new();
    machine_with_a_snapshot(&lab);
    let path = lab.home().join("core");
    // A QEMU that has not reached its disks by then ends by itself.
    let qemu = (0..10).find_map(|_| daemon_is_killed_at_a_core(&lab, &path)).expect("nothing was left");
    lab.ok(&["up"]);
    wait("QEMU to be gone", || watari_keeper::process_started(qemu).is_none().then_some(()));
    assert!(ephemerals(&lab).is_empty() && !path.exists());
    lab.ok(&["core", "m", path.to_str().unwrap()]);
    lab.listen("m").wait_for("STAMP pass");
}

/// Kills the daemon while it has a core written. The QEMU that does it, if it lives on.
fn daemon_is_killed_at_a_core(lab: &Lab, path: &Path) -> Option<u32> {
    let node = lab.ok(&["up"])["pid"].as_u64().unwrap() as u32;
    let mut writing = lab.watari(&["core", "m", path.to_str().unwrap(), "--json"]);
    let mut writing = Running::start(writing.stdout(Stdio::null()).stderr(Stdio::null()));
    let record: Value = wait("a QEMU", || {
        let folder = ephemerals(lab).pop()?;
        serde_json::from_slice(&fs::read(folder.join("instance.json")).ok()?).ok()
    });
    kill(node);
    assert!(!writing.0.wait().unwrap().success());
    let qemu = record["qemu_pid"].as_u64().unwrap() as u32;
    watari_keeper::process_started(qemu).map(|_| qemu)
}
