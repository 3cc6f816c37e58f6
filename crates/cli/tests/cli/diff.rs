//! How two snapshots differ, told of snapshots that no guest made: their disks were, by mke2fs and debugfs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use watari_store::{NodeKey, SnapshotDraft, Store};
use watari_types::{
    Boot, Delta, DiskConfig, Epoch, Generation, MachineConfig, MachineId, PAGE_SIZE, PageHash, Region,
    RegionDelta, RegionName, SnapshotId,
};

use crate::common::Bench;

const MIB: usize = 1 << 20;

/// Runs a program that is not in everybody's path.
fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(args).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system, before and after files were changed in it.
fn file_systems(bench: &Bench) -> [Vec<u8>; 2] {
    let content = bench.file("x", b"").with_file_name("content");
    fs::create_dir_all(content.join("etc")).unwrap();
    for (name, text) in [("etc/kept", "kept"), ("etc/gone", "gone"), ("etc/locked", "locked")] {
        fs::write(content.join(name), text).unwrap();
    }
    let image = content.with_file_name("image");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let options = ["-q", "-t", "ext4", "-b", "4096", "-d"].map(str::to_owned);
    run("mke2fs", options.into_iter().chain([text(&content), text(&image), "16M".to_owned()]));
    let before = fs::read(&image).unwrap();
    let new = bench.file("new", &[7; 5000]);
    let lines = [
        "cd /etc".to_owned(),
        format!("write {} new\u{1b}[2J", text(&new)),
        "rm gone".to_owned(),
        "sif locked mode 0100600".to_owned(),
    ];
    let script = bench.file("script", lines.join("\n").as_bytes());
    run("debugfs", ["-w".to_owned(), "-f".to_owned(), text(&script), text(&image)]);
    [before, fs::read(&image).unwrap()]
}

/// A disk with two partitions: the file system, and what looks like an xfs.
fn disk(file_system: &[u8], number: u8) -> Vec<u8> {
    let mut disk = vec![0; 32 * MIB];
    for (entry, first, sectors) in [(446, 2048_u32, 32768_u32), (462, 40960, 2048)] {
        disk[entry + 4] = 0x83;
        disk[entry + 8..entry + 12].copy_from_slice(&first.to_le_bytes());
        disk[entry + 12..entry + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk[MIB..MIB + file_system.len()].copy_from_slice(file_system);
    disk[20 * MIB..20 * MIB + 4].copy_from_slice(b"XFSB");
    disk[20 * MIB + 100] = number;
    disk
}

/// Puts a snapshot of a disk and of a page of memory into a machine's history.
pub(crate) fn publish(
    store: &Store,
    machine: MachineId,
    generation: u64,
    parent: Option<SnapshotId>,
    disk: &[u8],
) -> SnapshotId {
    let ram: RegionName = "ram/m0".parse().unwrap();
    let disk_region = Region { name: RegionName::disk(0), bytes: disk.len() as u64 };
    let draft = SnapshotDraft {
        config: MachineConfig {
            id: machine,
            memory_bytes: 1 << 20,
            cpus: 1,
            machine_type: "pc-q35-8.2".to_owned(),
            cpu_model: "x86-64-v2".to_owned(),
            device_layout: 1,
            boot: Boot::Disk,
            disks: vec![DiskConfig { bytes: disk.len() as u64 }],
            nics: vec![],
        },
        machine_name: "m".parse().unwrap(),
        parent,
        generation: Generation(generation),
        epoch: Epoch(1),
        branch: "main".to_owned(),
        created_unix_ms: 1_700_000_000_000,
        message: String::new(),
        regions: vec![Region { name: ram.clone(), bytes: 1 << 20 }, disk_region],
        qemu_version: "10.0.2".to_owned(),
        accelerator: "tcg".to_owned(),
        origin: None,
        has_memory: false,
    };
    let lease = store.lease().unwrap();
    let mut pack = store.new_pack(&lease).unwrap();
    let mut put = |page: &[u8; PAGE_SIZE]| {
        let name = PageHash::of(page);
        pack.put(name, page).unwrap();
        name
    };
    let pages: RegionDelta =
        (0..).zip(disk.as_chunks::<PAGE_SIZE>().0).map(|(n, page)| (n, put(page))).collect();
    let memory: RegionDelta = [(3, put(&[generation as u8; PAGE_SIZE]))].into_iter().collect();
    let delta: Delta = BTreeMap::from([(RegionName::disk(0), pages), (ram, memory)]);
    let before = parent.map(|parent| store.regions(parent).unwrap()).unwrap_or_default();
    let mut after = before.after(&delta, &draft.regions);
    pack.put_trees(&mut after, &draft.regions).unwrap();
    pack.finish().unwrap();
    let key = NodeKey::from_seed([7; 32]);
    let (id, _) = store.publish(&draft, &delta, &mut after, None, &key, &lease).unwrap();
    store.refs(machine).add(Generation(generation), id, &lease).unwrap();
    id
}

/// A machine with three snapshots, the last one like the second.
fn machine_with_snapshots() -> Bench {
    let bench = Bench::with_daemon();
    let machine: MachineId = bench.create("m")["id"].as_str().unwrap().parse().unwrap();
    let store = Store::open(&bench.home().join("store")).unwrap();
    let [before, after] = file_systems(&bench);
    let first = publish(&store, machine, 1, None, &disk(&before, 1));
    let second = publish(&store, machine, 2, Some(first), &disk(&after, 2));
    publish(&store, machine, 3, Some(second), &disk(&after, 2));
    bench
}

fn paths(volume: &Value, change: &str) -> Vec<String> {
    let files = volume["files"].as_array().unwrap().iter().filter(|file| file["change"] == change);
    files.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn files_and_pages_that_differ_are_told_to_programs() {
    let bench = machine_with_snapshots();
    let told = bench.json("diff m@2").well().json();
    assert_eq!(told, bench.json("diff m@1 m@2").well().json(), "the parent is what it is compared with");
    assert_eq!((&told["before"]["generation"], &told["after"]["generation"]), (&1.into(), &2.into()));
    let names: Vec<&str> =
        told["regions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["disk/0", "ram/m0"]);
    let memory = &told["regions"][1];
    assert_eq!((&memory["changed_pages"], &memory["changed_bytes"]), (&1.into(), &4096.into()));
    let volumes = told["disks"][0]["volumes"].as_array().unwrap();
    let [files, xfs] = &volumes[..] else { panic!("{volumes:?}") };
    assert_eq!((&files["partition"], &files["file_system"]), (&1.into(), &"ext4".into()));
    assert_eq!([&files["added"], &files["removed"], &files["changed"], &files["unlisted"]], [1, 1, 1, 0]);
    assert_eq!(paths(files, "added"), ["/etc/new\u{1b}[2J"]);
    assert_eq!(paths(files, "removed"), ["/etc/gone"]);
    assert_eq!(paths(files, "changed"), ["/etc/locked"]);
    let locked =
        files["files"].as_array().unwrap().iter().find(|file| file["path"] == "/etc/locked").unwrap();
    assert_eq!(locked["what"][0], "mode");
    assert_eq!((&locked["after"]["mode"], &locked["after"]["bytes"]), (&0o600.into(), &6.into()));
    assert_eq!(locked["after"]["kind"], "file");
    assert_eq!(
        (&xfs["partition"], &xfs["file_system"], &xfs["changed_pages"]),
        (&2.into(), &"xfs".into(), &1.into())
    );
    assert!(xfs["files"].as_array().unwrap().is_empty() && xfs["problem"].is_string());
}

#[test]
fn a_first_snapshot_is_compared_with_nothing_and_equal_disks_are_not_looked_into() {
    let bench = machine_with_snapshots();
    let first = bench.json("diff m@1").well().json();
    assert!(first["before"].is_null());
    let files = &first["disks"][0]["volumes"][0];
    assert_eq!(paths(files, "added"), ["/", "/etc", "/etc/gone", "/etc/kept", "/etc/locked", "/lost+found"]);
    let third = bench.json("diff m@3").well().json();
    assert_eq!(third["regions"].as_array().unwrap().len(), 1);
    assert!(third["disks"].as_array().unwrap().is_empty());
    let same = bench.run(["diff", "m@3", "m@3"]).well().stdout;
    assert_eq!(same, "m@3 → m@3\nnothing differs\n");
}

#[test]
fn a_snapshot_whose_parent_is_kept_no_more_is_compared_with_another_one() {
    let bench = machine_with_snapshots();
    let parent = bench.json("show m@2").well().json()["id"].as_str().unwrap().to_owned();
    fs::remove_file(bench.home().join(format!("store/snapshots/{parent}.snap"))).unwrap();
    let done = bench.json("diff m@3");
    assert_eq!(done.error_kind(), "bad_revision");
    assert!(done.json()["error"]["hint"].as_str().unwrap().contains("watari diff OTHER m@3"), "{done:?}");
    bench.json("diff m@3 m@3").well();
}

#[test]
fn people_get_a_table_that_cannot_speak_to_their_terminal() {
    let bench = machine_with_snapshots();
    let told = bench.run(["diff", "m@2"]).well().stdout;
    assert!(told.starts_with("m@1 → m@2\nREGION  PAGES"), "{told}");
    let files = told.split_once("\n\n").unwrap().1;
    insta::assert_snapshot!("files", files);
}
