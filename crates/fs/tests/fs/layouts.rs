//! Disks with partitions, made by sfdisk.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use watari_fs::{Content, Layout, Partition, Window, content, layout};

use crate::image::{Image, told_within};

const MIB: u64 = 1 << 20;

/// A disk of 64 MiB that sfdisk divides.
fn divided(script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let mut child = Command::new("sfdisk")
        .arg("-q")
        .arg(&path)
        .env("PATH", search)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    fs::read(&path).unwrap()
}

fn partitions(disk: &Vec<u8>) -> Vec<(u32, u64, u64)> {
    match layout(disk).unwrap() {
        Layout::Whole => Vec::new(),
        Layout::Partitions(found) => found.iter().map(|p| (p.number, p.start / 512, p.bytes / 512)).collect(),
    }
}

#[test]
fn partitions_are_where_sfdisk_put_them() {
    let gpt = divided("label: gpt\nstart=2048,size=32768\n5:start=40960,size=8192,type=U\n");
    assert_eq!(partitions(&gpt), [(1, 2048, 32768), (5, 40960, 8192)]);
    let mbr = divided("label: dos\nstart=63,size=32000,type=83,bootable\nstart=40960,size=8192,type=82\n");
    assert_eq!(partitions(&mbr), [(1, 63, 32000), (2, 40960, 8192)]);
    let logical = "label: dos\n1:start=2048,size=2048\n2:start=4096,size=60000,type=5\n5:start=6144,size=4096\n6:start=12288,size=4096\n7:start=20480,size=2048\n";
    assert_eq!(
        partitions(&divided(logical)),
        [(1, 2048, 2048), (5, 6144, 4096), (6, 12288, 4096), (7, 20480, 2048)]
    );
}

#[test]
fn a_disk_without_partitions_is_one_volume() {
    let image = Image::new("-t ext4 -b 4096", "16M", |_| {}).bytes();
    assert_eq!(layout(&image).unwrap(), Layout::Whole);
    assert_eq!(layout(&vec![0_u8; 4096]).unwrap(), Layout::Whole);
    assert_eq!(layout(&Vec::<u8>::new()).unwrap(), Layout::Whole);
    let mut fat = vec![0xE5; 65536];
    fat[510..512].copy_from_slice(&[0x55, 0xAA]);
    fat[82..90].copy_from_slice(b"FAT32   ");
    assert_eq!(layout(&fat).unwrap(), Layout::Whole);
    assert_eq!(content(&Window::all(&fat)).unwrap(), Content::Other("vfat"));
}

#[test]
fn files_on_a_partition_are_compared_wherever_it_begins() {
    let before = Image::new("-t ext4 -b 1024", "16M", |folder| fs::write(folder.join("a"), "a").unwrap());
    let after = before.changed(&["rm a".to_owned(), "mkdir b".to_owned()]);
    for (script, start) in [
        ("label: gpt\nstart=2048,size=32768\n", MIB),
        // Old disks begin at sector 63, in the middle of a page.
        ("label: dos\nstart=63,size=32768\n", 63 * 512),
    ] {
        let disk = divided(script);
        let with = |image: &Image| {
            let (mut disk, image) = (disk.clone(), image.bytes());
            disk[start as usize..][..image.len()].copy_from_slice(&image);
            disk
        };
        let [before, after] = [with(&before), with(&after)];
        let Layout::Partitions(found) = layout(&after).unwrap() else { panic!("no partitions") };
        assert_eq!(found, [Partition { number: 1, start, bytes: 16 * MIB }]);
        assert_eq!(told_within(Some(&before), Some(&after), start).unwrap().lines(), ["- /a", "+ /b"]);
    }
}

proptest! {
    #[test]
    fn tables_of_anything_are_read_in_bounded_time(
        places in prop::collection::vec((0_usize..20_000, any::<u8>()), 0..64), which in 0..2_usize,
    ) {
        let mut disk = vec![0; 2 << 20];
        match which {
            0 => {
                disk[510..512].copy_from_slice(&[0x55, 0xAA]);
                // An extended partition whose tables are made of chance.
                disk[446 + 4] = 5;
                disk[446 + 8] = 1;
                disk[446 + 12] = 255;
            }
            _ => {
                disk[512..520].copy_from_slice(b"EFI PART");
                disk[512 + 72] = 2;
                disk[512 + 80] = 128;
                disk[512 + 84] = 128;
            }
        }
        for (at, byte) in places {
            disk[at] = byte;
        }
        if let Layout::Partitions(found) = layout(&disk).unwrap() {
            for partition in found {
                prop_assert!(partition.bytes > 0 && partition.start + partition.bytes <= 2 << 20);
            }
        }
    }
}
