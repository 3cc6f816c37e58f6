//! Images go in and come out: what was in them, the holes, and nothing twice.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::lab::{Lab, text};

const MIB: u64 = 1 << 20;

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// `watari disk serve`, until it goes.
struct Served {
    child: Child,
    uri: String,
}

impl Served {
    fn new(lab: &Lab, rev: &str) -> Served {
        let mut child = lab.watari(&["disk", "serve", rev, "--json"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Served { child, uri: said["uri"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 4 MiB that do not compress, at three places of 64 MiB, and a little of something else.
fn noise() -> Vec<u8> {
    let mut random = 88_172_645_463_325_252u64;
    let mut word = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    };
    (0..4 * MIB / 8).flat_map(|_| word()).collect()
}

/// A qcow2 image over another one, which together hold the noise at 0, 20 and 40 MiB.
fn chain(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let raw = File::create(path("base.raw")).unwrap();
    raw.set_len(64 * MIB).unwrap();
    raw.write_all_at(&noise(), 0).unwrap();
    raw.write_all_at(&noise(), 20 * MIB).unwrap();
    raw.write_all_at(b"to be hidden", 40 * MIB).unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &path("base.raw"), &path("base.qcow2")]);
    let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &path("base.qcow2"), &path("top.qcow2")];
    run("qemu-img", &over);
    fs::write(path("noise"), noise()).unwrap();
    run("qemu-io", &["-c", &format!("write -q -s {} 40M 4M", path("noise")), &path("top.qcow2")]);
    path("top.qcow2")
}

#[test]
fn a_chain_of_images_comes_out_as_it_went_in_sparse_and_nothing_twice() {
    let (lab, folder) = (Lab::new(), tempfile::tempdir().unwrap());
    let image = chain(folder.path());
    lab.ok(&["create", "m", "--image", &image, "--memory", "64M"]);
    lab.ok(&["start", "m"]);
    let stored = lab.ok(&["checkpoint", "m"]);
    assert!(stored["disk_pages"].as_u64().unwrap() >= 3 * 4 * MIB / 4096, "{stored}");
    assert!(stored["stored_bytes"].as_u64().unwrap() < 6 * MIB, "the same content is kept once: {stored}");

    let served = Served::new(&lab, "m");
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &image, &served.uri]);
    let map: Value =
        serde_json::from_str(&run("qemu-img", &["map", "--output=json", "-f", "raw", &served.uri])).unwrap();
    let data: u64 = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["data"] == true)
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert_eq!(data, 12 * MIB, "{map}");
    let out = folder.path().join("out.raw");
    run("nbdcopy", &[&served.uri, out.to_str().unwrap()]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &image, out.to_str().unwrap()]);
    let taken = fs::metadata(&out).unwrap().blocks() * 512;
    assert!(taken < 13 * MIB, "what was sparse is not any more: {taken} bytes");
    let raw = fs::metadata(lab.folder("m").join("disk0.raw")).unwrap();
    assert!(raw.len() == 64 * MIB && raw.blocks() * 512 < 13 * MIB, "{} bytes are taken", raw.blocks() * 512);
}
