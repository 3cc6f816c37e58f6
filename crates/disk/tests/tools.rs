//! Other people's NBD clients find in the server what they expect.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{Memory, memory, pattern, place};
use watari_disk::Disk;
use watari_disk::nbd::{Export, Exports, ReadOnly, Server};
use watari_types::{Generation, PAGE_SIZE};

fn serve(folder: &Path, exports: Vec<(&str, Arc<dyn Export>)>) -> (Server, impl Fn(&str) -> String) {
    let socket = folder.join("nbd");
    let listener = UnixListener::bind(&socket).unwrap();
    let exports: Exports = exports.into_iter().map(|(name, export)| (name.to_owned(), export)).collect();
    let server = Server::start(listener, exports).unwrap();
    (server, move |name: &str| format!("nbd+unix:///{name}?socket={}", socket.display()))
}

/// Runs a program to its end (or, should it hang, kills it) and returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new("timeout").args(["-k", "1", "60", program]).args(args).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{said}", output.status);
    said
}

#[test]
fn nbdinfo_sees_every_export_and_what_it_can() {
    let (folder, path) = place();
    let disk = Disk::create(&path, 1 << 20, None).unwrap();
    let read_only = ReadOnly::new(Arc::new(Memory(pattern(10))), 10 * 4096);
    let (_server, uri) = serve(folder.path(), vec![("disk", Arc::new(disk)), ("old", Arc::new(read_only))]);
    let list = run("nbdinfo", &["--list", &uri("")]);
    assert!(list.contains("export=\"disk\"") && list.contains("export=\"old\""), "{list}");
    let info = run("nbdinfo", &[&uri("disk")]);
    for expected in [
        "export-size: 1048576",
        "base:allocation",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "is_read_only: false",
        "structured packets",
    ] {
        assert!(info.contains(expected), "{expected} is not in {info}");
    }
    assert!(run("nbdinfo", &[&uri("old")]).contains("is_read_only: true"));
}

#[test]
fn nbdinfo_maps_data_and_holes_of_file_and_source() {
    let (folder, path) = place();
    let mut content = vec![0; 64 * PAGE_SIZE];
    content[8 * PAGE_SIZE..12 * PAGE_SIZE].fill(7);
    let disk = Disk::create(&path, content.len() as u64, memory(&content)).unwrap();
    disk.write_at(32 * 4096, &[1; 2 * PAGE_SIZE]).unwrap();
    disk.trim(9 * 4096, 4096).unwrap();
    let (_server, uri) = serve(folder.path(), vec![("", Arc::new(disk))]);
    let map = run("nbdinfo", &["--map", &uri("")]);
    let lines: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        ["0", "32768", "3", "hole,zero"],
        ["32768", "4096", "0", "data"],
        ["36864", "4096", "3", "hole,zero"],
        ["40960", "8192", "0", "data"],
        ["49152", "81920", "3", "hole,zero"],
        ["131072", "8192", "0", "data"],
        ["139264", "122880", "3", "hole,zero"],
    ];
    assert_eq!(lines, expected);
}

#[test]
fn nbdcopy_and_qemu_img_bring_in_and_out_what_is_there() {
    let (folder, path) = place();
    let content = pattern(600);
    let image = folder.path().join("image");
    std::fs::write(&image, &content).unwrap();
    let disk = Disk::create(&path, content.len() as u64, None).unwrap();
    let old = ReadOnly::new(Arc::new(Memory(content.clone())), content.len() as u64);
    let (_server, uri) = serve(folder.path(), vec![("disk", Arc::new(disk.clone())), ("old", Arc::new(old))]);
    run("nbdcopy", &["--flush", image.to_str().unwrap(), &uri("disk")]);
    assert_eq!(disk.scan().len(), 400, "zero pages need no marks");
    for (name, program) in
        [("disk", "nbdcopy"), ("old", "nbdcopy"), ("disk", "qemu-img"), ("old", "qemu-img")]
    {
        let out = folder.path().join(format!("{name}-{program}"));
        let (uri, target) = (uri(name), out.to_str().unwrap());
        match program {
            "nbdcopy" => run("nbdcopy", &[&uri, target]),
            _ => run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, target]),
        };
        assert!(std::fs::read(&out).unwrap() == content, "{program} {name}");
    }
}

#[test]
fn qemu_io_writes_zeroes_and_discards_reach_the_disk() {
    let (folder, path) = place();
    let disk = Disk::create(&path, 4 << 20, memory(&pattern(1024))).unwrap();
    let (_server, uri) = serve(folder.path(), vec![("d", Arc::new(disk.clone()))]);
    let io = |commands: &[&str]| {
        let commands: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        let said = run("qemu-io", &[&["-f", "raw"], &commands[..], &[&uri("d")]].concat());
        assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
    };
    io(&["write -P 0x11 0 64k", "write -f -P 0x22 1000k 3k", "flush", "read -P 0x11 512 1k"]);
    io(&[
        "write -z 64k 64k",
        "write -z -u 128k 100k",
        "discard 2M 1M",
        "read -P 0 64k 164k",
        "read -P 0 2M 1M",
    ]);
    io(&["aio_write -P 0x33 3M 1M", "aio_read -P 0x11 0 64k", "aio_flush", "read -P 0x33 3M 1M"]);
    let found = disk.scan();
    assert!([0, 15, 16, 56, 250, 512, 767, 768, 1023].iter().all(|page| found.contains(*page)), "{found:?}");
    assert!([57, 249, 251, 511].iter().all(|page| !found.contains(*page)), "{found:?}");
}

#[test]
fn fio_verifies_what_it_wrote_while_the_disk_is_sealed_and_hydrated() {
    let (folder, path) = place();
    let bytes = 24 << 20;
    let disk = Disk::create(&path, bytes, memory(&pattern((bytes / 4096) as u32))).unwrap();
    let (_server, uri) = serve(folder.path(), vec![("d", Arc::new(disk.clone()))]);
    let _hydration = disk.hydrate();
    let uri = format!("--uri={}", uri("d"));
    let fio = std::thread::spawn(move || {
        let fixed = [
            "--name=v",
            "--ioengine=nbd",
            "--size=24M",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--iodepth=16",
        ];
        let rest =
            ["--rw=randrw", "--bssplit=512/20:4k/50:20k/30", "--fsync=64", "--verify_fatal=1", "--loops=2"];
        run("fio", &[&fixed[..], &rest[..], &[&uri]].concat())
    });
    let mut got = [0; PAGE_SIZE];
    while !fio.is_finished() {
        let sealed = disk.seal();
        for page in sealed.pages().iter() {
            sealed.read(page, &mut got).unwrap();
        }
        disk.published(sealed, Generation(1));
    }
    let said = fio.join().unwrap();
    assert!(said.contains("err= 0"), "{said}");
}
