//! Journals that were not played back, as a guest leaves them that runs. debugfs writes them.

use std::path::Path;

use watari_fs::{Ext4, Steps, Window};

use crate::image::{Image, told};

const BLOCK: usize = 1024;

fn fill(folder: &Path) {
    for name in ["kept", "gone", "grows"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
}

/// An image, and a later state of it.
fn images(options: &str) -> [Image; 2] {
    let before = Image::new(options, "16M", fill);
    // Its first bytes are those that begin a block of a journal.
    let odd = before.file("odd", &[0xC0, 0x3B, 0x39, 0x98, 1, 2, 3]);
    let lines = [
        format!("write {} added", odd.display()),
        "rm gone".to_owned(),
        "sif /kept mode 0100600".to_owned(),
        "mkdir folder".to_owned(),
    ];
    let after = before.changed(&lines);
    [before, after]
}

/// The blocks in which two images differ, as debugfs wants them to be listed, and their later content.
fn difference(before: &[u8], after: &[u8]) -> (String, Vec<u8>) {
    let (mut list, mut content) = (Vec::new(), Vec::new());
    for (block, (old, new)) in before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
        if old != new {
            list.push(block.to_string());
            content.extend_from_slice(new);
        }
    }
    (list.join(","), content)
}

/// The journals there are: without checksums, and with those of versions 2 and 3; of 32 and 64 bits.
const JOURNALS: [(&str, &str); 4] = [
    ("-t ext3 -b 1024", "jo"),
    ("-t ext4 -b 1024 -O ^metadata_csum", "jo"),
    ("-t ext4 -b 1024", "jo -c -v 2"),
    ("-t ext4 -b 1024", "jo -c -v 3"),
];

const CHANGES: [&str; 4] = ["+ /added", "+ /folder", "- /gone", "m /kept"];

#[test]
fn what_is_in_the_journal_only_is_seen() {
    for (options, open) in JOURNALS {
        let [before, after] = images(options);
        let (list, content) = difference(&before.bytes(), &after.bytes());
        let logged = before.copy();
        let content = logged.file("content", &content);
        logged.debugfs(&[open.to_owned(), format!("jw -b {list} {}", content.display()), "jc".to_owned()]);
        let [before, after, logged] = [before, after, logged].map(|image| image.bytes());
        assert_eq!(told(Some(&before), Some(&after)).unwrap().lines(), CHANGES, "{options} {open}");
        assert_eq!(told(Some(&before), Some(&logged)).unwrap().lines(), CHANGES, "{options} {open}");
        assert!(told(Some(&after), Some(&logged)).unwrap().lines().is_empty(), "{options} {open}");
    }
}

#[test]
fn a_transaction_without_its_commit_is_as_if_it_had_not_been() {
    for (options, open) in JOURNALS {
        let [before, after] = images(options);
        let (list, content) = difference(&before.bytes(), &after.bytes());
        let logged = before.copy();
        let content = logged.file("content", &content);
        let open = open.to_owned();
        logged.debugfs(&[open, format!("jw -c -b {list} {}", content.display()), "jc".to_owned()]);
        assert!(told(Some(&before.bytes()), Some(&logged.bytes())).unwrap().lines().is_empty(), "{options}");
    }
}

#[test]
fn a_block_that_was_revoked_is_not_taken_from_an_older_transaction() {
    for (options, open) in JOURNALS {
        let [before, after] = images(options);
        let (list, content) = difference(&before.bytes(), &after.bytes());
        let nonsense = vec![0xEE; content.len()];
        let logged = after.copy();
        let (nonsense, content) = (logged.file("nonsense", &nonsense), logged.file("content", &content));
        // All of it is revoked, and part of it written once more.
        let (first, _) = list.split_once(',').unwrap();
        let lines = [
            open.to_owned(),
            format!("jw -b {list} {}", nonsense.display()),
            format!("jw -r {list} {}", content.display()),
            format!("jw -b {first} {}", content.display()),
            "jc".to_owned(),
        ];
        logged.debugfs(&lines);
        assert!(
            told(Some(&after.bytes()), Some(&logged.bytes())).unwrap().lines().is_empty(),
            "{options} {open}"
        );
    }
}

#[test]
fn the_test_leaves_a_journal_to_be_played_back() {
    let [before, after] = images("-t ext4 -b 1024");
    let (list, content) = difference(&before.bytes(), &after.bytes());
    let content = before.file("content", &content);
    before.debugfs(&["jo".to_owned(), format!("jw -b {list} {}", content.display()), "jc".to_owned()]);
    let disk = before.bytes();
    let needs_recovery = disk[1024 + 96] & 4 != 0;
    assert!(needs_recovery && Ext4::open(Window::all(&disk), &Steps::default()).is_ok());
}
