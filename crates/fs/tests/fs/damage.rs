//! Damage and malice: whatever is on a disk, reading it ends, and ends with an answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::LazyLock;

use proptest::prelude::*;
use watari_fs::{Layout, Window, content, layout};

use crate::image::{Image, told};

/// A small file system of a kind, with a journal that is to be played back where there can be one.
fn image(options: &str) -> Vec<u8> {
    let image = Image::new(options, "4M", |folder| {
        for n in 0..40 {
            fs::create_dir_all(folder.join(format!("{}/{n}", n % 5))).unwrap();
            fs::write(folder.join(format!("{}/{n}/file", n % 5)), vec![n; 3000 * usize::from(n)]).unwrap();
            symlink("y".repeat(usize::from(n) * 4 + 1), folder.join(format!("{n} link"))).unwrap();
        }
    });
    if !options.contains("ext2") {
        let superblock = image.bytes()[1024..2048].to_vec();
        let content = image.file("content", &superblock);
        let lines = ["jo".to_owned(), format!("jw -b 1 {}", content.display()), "jc".to_owned()];
        image.debugfs(&lines);
    }
    image.bytes()
}

static IMAGES: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| [image("-t ext4 -b 1024 -J size=1 -N 200"), image("-t ext2 -b 1024 -N 200")]);

/// Whether reading it ended is all that is asked for.
fn look_at(before: &Vec<u8>, after: &Vec<u8>) {
    let _ = content(&Window::all(after)).unwrap();
    let _ = layout(after).unwrap();
    let _ = told(None, Some(after));
    let _ = told(Some(before), Some(after));
    let _ = told(Some(after), Some(before));
}

/// Places that matter: the blocks that say where others are, anything that is not zero, and anything at all.
fn place(disk: usize) -> impl Strategy<Value = usize> {
    let image = &IMAGES[disk];
    let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0 && *at < 1 << 20).collect();
    prop_oneof![1024..2048_usize, 2048..4096_usize, prop::sample::select(used), 0..image.len()]
}

fn damage() -> impl Strategy<Value = (usize, Vec<(usize, u8)>)> {
    (0..2_usize).prop_flat_map(|disk| (Just(disk), prop::collection::vec((place(disk), any::<u8>()), 1..12)))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_were_changed_by_chance_are_survived((disk, bytes) in damage()) {
        let before = &IMAGES[disk];
        let mut after = before.clone();
        for (at, byte) in bytes {
            after[at] = byte;
        }
        look_at(before, &after);
    }

    #[test]
    fn disks_that_end_anywhere_are_survived(disk in 0..2_usize, length in 0..4_usize << 20) {
        let before = &IMAGES[disk];
        look_at(before, &before[..length].to_vec());
    }
}

#[test]
fn noise_with_the_right_magic_is_survived() {
    let mut seed = 7_u32;
    for _ in 0..200 {
        let mut disk: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(1 << 16)
        .collect();
        disk[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xEF]);
        disk[1024 + 24..1024 + 28].fill(0);
        disk[1024 + 96..1024 + 100].fill(0);
        look_at(&disk.clone(), &disk);
        assert!(matches!(layout(&disk).unwrap(), Layout::Whole | Layout::Partitions(_)));
    }
}

#[test]
fn a_directory_within_itself_is_no_way_without_an_end() {
    let image = Image::new("-t ext4 -b 1024", "4M", |folder| fs::create_dir_all(folder.join("a/b")).unwrap());
    let looped = image.changed(&["ln /a /a/b/again".to_owned()]);
    let error = told(None, Some(&looped.bytes())).err().unwrap().to_string();
    assert!(error.contains("two places"), "{error}");
}

#[test]
fn a_file_that_claims_to_be_endless_costs_no_memory() {
    for options in ["-t ext4 -b 1024", "-t ext2 -b 1024"] {
        let image = Image::new(options, "4M", |folder| {
            fs::write(folder.join("file"), vec![1; 100_000]).unwrap();
            symlink("y".repeat(100), folder.join("link")).unwrap();
            fs::create_dir(folder.join("folder")).unwrap();
        });
        let huge = |name: &str| {
            let changed = image.changed(&[format!("sif /{name} size 0xfffffffffff")]);
            told(None, Some(&changed.bytes()))
        };
        assert!(huge("file").is_ok() && huge("link").is_ok());
        assert!(huge("folder").is_err());
    }
}
