//! `watari create`: a whole machine, or nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::{Bench, fake_kernel};

#[test]
fn a_machine_is_there_as_it_was_asked_for() {
    let bench = Bench::with_daemon();
    let kernel = bench.file("kernel", &fake_kernel());
    let initrd = bench.file("initrd", b"anything");
    let line = format!(
        "create web.1 --kernel {} --initrd {} --append quiet --memory 64M --cpus 2 --disk 8M",
        kernel.display(),
        initrd.display()
    );
    let made = bench.json(&line).well().json();
    assert_eq!(made["name"], "web.1");
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    assert_eq!(made["memory_bytes"], 64 << 20);
    assert_eq!(made["cpus"], 2);
    assert_eq!(made["disk_bytes"], json!([8 << 20]));
    assert_eq!(made["state"], "stopped");
    let copy = bench.home().join("machines/web.1/boot/kernel");
    assert_eq!(fs::read(copy).unwrap(), fake_kernel());
}

#[test]
fn the_demo_machine_needs_no_files() {
    let bench = Bench::with_daemon();
    let made = bench.json("create d --demo").well().json();
    assert_eq!(made["memory_bytes"], 128 << 20);
    assert_eq!(made["disk_bytes"], json!([64 << 20]));
}

#[test]
fn an_image_becomes_the_disk_and_may_grow() {
    let bench = Bench::with_daemon();
    let mut image = vec![0; 1 << 20];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[4096..4100].copy_from_slice(b"here");
    let path = bench.file("image", &image);
    let made = bench.json(&format!("create i --image {} --disk 4M", path.display())).well().json();
    assert_eq!(made["disk_bytes"], json!([4 << 20]));
    let disk = fs::read(bench.home().join("machines/i/disk0.raw")).unwrap();
    assert_eq!((disk.len(), &disk[4096..4100]), (4 << 20, b"here".as_slice()));
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let bench = Bench::with_daemon();
    bench.create("there");
    let before = bench.machine_files();
    let text = bench.file("text", b"this is no disk image\n");
    let (text, kernel) = (text.display(), bench.home().parent().unwrap().join("kernel"));
    let kernel = kernel.display();
    for (line, kind) in [
        ("create there --demo".to_owned(), "name_taken"),
        ("create node --demo".to_owned(), "bad_name"),
        (format!("create x --image {text}"), "not_an_image"),
        (format!("create x --kernel {text}"), "not_an_image"),
        ("create x --kernel /nonexistent".to_owned(), "io"),
        ("create x --image /nonexistent".to_owned(), "io"),
        (format!("create x --kernel {kernel} --image {text}"), "not_an_image"),
        (format!("create x --kernel {kernel} --memory 1M"), "bad_request"),
        (format!("create x --kernel {kernel} --cpus 0"), "bad_request"),
        (format!("create x --kernel {kernel} --disk 1000"), "bad_request"),
    ] {
        assert_eq!(bench.json(&line).error_kind(), kind, "{line}");
        assert_eq!(bench.machine_files(), before, "{line}");
        assert!(!bench.home().join("run/x").exists(), "{line}");
    }
}

#[test]
fn without_qemu_or_with_an_old_one_no_machine_is_made() {
    let programs = tempfile::tempdir().unwrap();
    let bench = Bench::with_programs(programs.path());
    assert_eq!(bench.json("create x --demo").error_kind(), "qemu_missing");
    let qemu = programs.path().join("qemu-system-x86_64");
    fs::write(&qemu, "#!/bin/sh\necho 'QEMU emulator version 7.2.9'\n").unwrap();
    fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(bench.json("create x --demo").error_kind(), "qemu_too_old");
    assert!(bench.machine_files().is_empty());
}
