//! Images of all kinds become raw files, and what is no image is refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use watari_disk::image::{ImageFormat, import, probe};
use watari_disk::{Disk, Error};

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A qcow2 image on top of another one, with a pattern in each.
fn chain(folder: &Path) -> PathBuf {
    let (base, top) = (folder.join("base.qcow2"), folder.join("top.qcow2"));
    run("qemu-img", &["create", "-f", "qcow2", base.to_str().unwrap(), "10M"]);
    run("qemu-io", &["-c", "write -P 1 0 1M", "-c", "write -P 2 5M 64k", base.to_str().unwrap()]);
    run("qemu-img", &["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top.to_str().unwrap()]);
    run("qemu-io", &["-c", "write -P 3 64k 64k", top.to_str().unwrap()]);
    top
}

#[test]
fn a_qcow2_chain_becomes_a_sparse_raw_file_and_then_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (top, to) = (chain(folder.path()), folder.path().join("0.raw"));
    let info = probe(&top).unwrap();
    assert_eq!((info.format, info.bytes), (ImageFormat::Qcow2, 10 << 20));
    assert!(info.backing_file.unwrap().ends_with("base.qcow2"));
    let seen = RefCell::new(Vec::new());
    assert_eq!(
        import(&top, &to, Some((20 << 20) + 1), &|at| seen.borrow_mut().push(at)).unwrap(),
        (20 << 20) + 4096
    );
    assert!(seen.borrow().is_sorted() && seen.borrow().last() == Some(&1.0), "{seen:?}");

    let disk = Disk::adopt_raw(&to).unwrap();
    let byte = |at| {
        let mut byte = [0];
        disk.read_at(at, &mut byte).unwrap();
        byte[0]
    };
    assert_eq!([0, 65_536, 1 << 20, 5 << 20, 20 << 20].map(byte), [1, 3, 0, 2, 0]);
    assert_eq!(disk.pending().len(), (1 << 20) / 4096 + 16);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "nothing is left over");
}

#[test]
fn raw_images_are_known_by_what_disks_begin_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let check = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        probe(&path)
    };
    let with = |at: usize, magic: &[u8]| {
        let mut content = vec![7; 1 << 17];
        content[at..at + magic.len()].copy_from_slice(magic);
        content
    };
    for good in [
        with(510, b"\x55\xaa"),
        with(512, b"EFI PART"),
        with(1080, b"\x53\xef"),
        with(0, b"XFSB"),
        with(0x1_0040, b"_BHRfS_M"),
        with(512, b"LABELONE"),
        with(0x8001, b"CD001"),
        with(4086, b"SWAPSPACE2"),
        vec![0; 512],
        vec![0; 1 << 20],
    ] {
        let info = check(&good).unwrap();
        assert_eq!((info.format, info.bytes), (ImageFormat::Raw, good.len() as u64));
    }
    let mut kernel = with(510, b"\x55\xaa");
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let mut not_quite_empty = vec![0; 3 << 20];
    not_quite_empty[(3 << 20) - 1] = 1;
    for bad in [vec![], b"#!/bin/sh\n".to_vec(), vec![0; 513], vec![7; 1024], kernel, not_quite_empty] {
        assert!(matches!(check(&bad), Err(Error::NotAnImage { .. })), "{} bytes", bad.len());
    }
}

#[test]
fn a_real_file_system_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let (image, to) = (folder.path().join("i"), folder.path().join("0.raw"));
    run("mke2fs", &["-q", "-t", "ext4", image.to_str().unwrap(), "8M"]);
    assert_eq!(import(&image, &to, None, &|_| ()).unwrap(), 8 << 20);
    assert!(fs::read(&image).unwrap() == fs::read(&to).unwrap());
}

#[test]
fn what_cannot_be_imported_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (top, to) = (chain(folder.path()), at("0.raw"));
    fs::write(&to, "precious").unwrap();
    let import = |path: &Path, grow_to| import(path, &to, grow_to, &|_| ()).unwrap_err();

    assert!(matches!(import(&top, Some(1 << 20)), Error::ImageTooBig { image_bytes: 0xa0_0000, .. }));
    assert!(matches!(import(&top, Some(1 << 50)), Error::BadSize { .. }));
    assert!(matches!(import(&at("nowhere"), None), Error::Io { .. }));
    assert!(matches!(import(folder.path(), None), Error::NotAnImage { .. }));
    run("qemu-img", &["create", "-f", "vmdk", at("v").to_str().unwrap(), "1M"]);
    assert!(matches!(import(&at("v"), None), Error::NotAnImage { .. }));
    fs::write(at("cut"), &fs::read(&top).unwrap()[..100]).unwrap();
    let err = import(&at("cut"), None);
    assert!(matches!(err, Error::QemuImg { .. } | Error::NotAnImage { .. }), "{err}");
    fs::remove_file(at("base.qcow2")).unwrap();
    let err = import(&top, None);
    assert!(matches!(err, Error::QemuImg { .. }) && err.to_string().contains("base.qcow2"), "{err}");

    assert_eq!(fs::read_to_string(&to).unwrap(), "precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is left over");
}
