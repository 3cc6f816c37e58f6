//! What is told of file systems that were changed in ways that are known.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use watari_fs::{Content, Error, Ext4, Steps, Window, content};

use crate::image::{Image, run, told};

/// File systems of all kinds that are read.
const OPTIONS: [&str; 12] = [
    "-t ext4 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -b 2048 -O ^64bit,^metadata_csum",
    "-t ext4 -b 4096 -O meta_bg,^resize_inode",
    "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode",
    "-t ext4 -b 4096 -O bigalloc",
    "-t ext4 -b 4096 -O sparse_super2,large_dir,quota",
    "-t ext4 -b 4096 -I 128",
    "-t ext4 -b 1024 -O ^extent,^64bit",
    "-t ext3 -b 1024",
    "-t ext2 -b 4096",
    "-t ext2 -b 1024 -O ^filetype",
];

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b/c")).unwrap();
    fs::create_dir(folder.join("z")).unwrap();
    for name in ["a/kept", "a/gone", "a/other", "a/b/chmod", "a/b/chown", "a/b/c/old name", "z/in place"] {
        fs::write(folder.join(name), format!("{name}\n").repeat(5000)).unwrap();
    }
    fs::write(folder.join("a/empty"), "").unwrap();
    symlink("kept", folder.join("a/short")).unwrap();
    symlink("x".repeat(200), folder.join("a/long")).unwrap();
    for name in [&b"a/new\nline"[..], b"a/esc\x1b[2J", b"a/\xff\xfe"] {
        fs::write(folder.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 700 << 20).unwrap();
}

/// Everything in a folder, with sizes, as a file system shows it.
fn sizes(folder: &Path, below: &str, into: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().as_bytes().escape_ascii());
        let about = fs::symlink_metadata(entry.path()).unwrap();
        if about.is_dir() {
            sizes(&entry.path(), &path, into);
        } else {
            into.insert(path, about.size());
        }
    }
}

#[test]
fn a_new_file_system_is_all_that_was_put_into_it() {
    for options in OPTIONS {
        let mut expected = BTreeMap::new();
        let image = Image::new(options, "64M", |folder| {
            fill(folder);
            sizes(folder, "", &mut expected);
        });
        let disk = image.bytes();
        assert_eq!(content(&Window::all(&disk)).unwrap(), Content::Ext4, "{options}");
        let told = told(None, Some(&disk)).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(told.lines().iter().all(|line| line.starts_with("+ /")), "{options}");
        let found = told.sizes();
        for directory in ["/", "/a", "/a/b", "/a/b/c", "/z", "/lost+found"] {
            assert!(found.contains_key(directory), "{directory} of {options}: {found:?}");
        }
        let files: BTreeMap<String, u64> =
            found.into_iter().filter(|(path, _)| expected.contains_key(path)).collect();
        assert_eq!(files, expected, "{options}");
        assert_eq!(told.0.len(), expected.len() + 6, "{options}: {:?}", told.lines());
    }
}

#[test]
fn what_was_changed_is_told_and_nothing_else() {
    for options in OPTIONS {
        let before = Image::new(options, "64M", fill);
        let more = before.file("more", &b"more and ".repeat(9000));
        let lines = [
            "cd /a".to_owned(),
            format!("write {} added", more.display()),
            "rm gone".to_owned(),
            "rm other".to_owned(),
            format!("write {} other", more.display()),
            "symlink new-link somewhere".to_owned(),
            "rm short".to_owned(),
            "symlink short gone".to_owned(),
            "mkdir d".to_owned(),
            "cd d".to_owned(),
            format!("write {} deep", more.display()),
            "cd /a/b/c".to_owned(),
            "ln \"old name\" \"new name\"".to_owned(),
            "unlink \"old name\"".to_owned(),
            "sif /a/b/chmod mode 0100751".to_owned(),
            "sif /a/b/chown uid 70000".to_owned(),
            "sif /a/empty mtime @915148800".to_owned(),
            "sif /a/b mode 040700".to_owned(),
        ];
        let after = before.changed(&lines);
        let (before, mut bytes) = (before.bytes(), after.bytes());
        // Content that changes while everything else stays: the block of the file is found by what it holds.
        let at = bytes.windows(11).position(|text| text == b"z/in place\n").unwrap();
        bytes[at..at + 2].copy_from_slice(b"Z!");
        let told = told(Some(&before), Some(&bytes)).unwrap_or_else(|e| panic!("{options}: {e}"));
        let is_ours = |line: &&String| !line.ends_with("/a/other") && !line.ends_with("/a/short");
        let found = told.lines();
        let expected = [
            "+ /a/added",
            "m /a/b",
            "+ /a/b/c/new name",
            "- /a/b/c/old name",
            "m /a/b/chmod",
            "o /a/b/chown",
            "+ /a/d",
            "+ /a/d/deep",
            "t /a/empty",
            "- /a/gone",
            "+ /a/new-link",
            "c /z/in place",
        ];
        assert_eq!(
            found.iter().filter(is_ours).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>(),
            "{options}"
        );
        // How much of a file that was written anew is as it was depends on the clock.
        assert!(found.iter().any(|line| line.starts_with('c') && line.ends_with(" /a/other")), "{found:?}");
        assert!(found.iter().any(|line| line.starts_with('c') && line.ends_with(" /a/short")), "{found:?}");
        let back = crate::image::told(Some(&bytes), Some(&before)).unwrap().lines();
        assert_eq!(back.len(), found.len(), "{options}");
        assert!(crate::image::told(Some(&bytes), Some(&bytes)).unwrap().0.is_empty(), "{options}");
    }
}

#[test]
fn directories_with_an_index_are_read_in_full() {
    let names: Vec<String> = (0..4000).map(|n| format!("a name that takes some room {n:05}")).collect();
    let before = Image::new("-t ext4 -b 1024", "64M", |folder| {
        names.iter().for_each(|name| fs::write(folder.join(name), "").unwrap());
    });
    // e2fsck ends with 1 when it did what it was asked for.
    let optimize = format!("e2fsck -fyD {}; test $? -le 1", before.path().display());
    run("sh", ["-c", &optimize]);
    let said = run("debugfs", ["-R", "htree_dump /", before.path().to_str().unwrap()]);
    assert!(said.contains("Indirect levels"), "{said}");
    let after = before.changed(&["rm \"a name that takes some room 01234\"".to_owned()]);
    let (before, after) = (before.bytes(), after.bytes());
    assert_eq!(told(None, Some(&before)).unwrap().0.len(), 4002);
    assert_eq!(told(Some(&before), Some(&after)).unwrap().lines(), ["- /a name that takes some room 01234"]);
}

#[test]
fn file_systems_that_have_nothing_to_do_with_each_other_are_compared_by_size_and_time() {
    let same = |folder: &Path| {
        for (name, text) in [("same", "1"), ("larger", "2"), ("touched", "3")] {
            let file = File::create(folder.join(name)).unwrap();
            fs::write(folder.join(name), text).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
        }
    };
    let one = Image::new("-t ext4 -b 4096", "16M", same);
    let other = Image::new("-t ext2 -b 1024", "16M", |folder| {
        same(folder);
        fs::write(folder.join("new"), "").unwrap();
        fs::write(folder.join("touched"), "4").unwrap();
        let larger = File::options().write(true).open(folder.join("larger")).unwrap();
        larger.set_len(5).unwrap();
        larger.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
    });
    let told = told(Some(&one.bytes()), Some(&other.bytes())).unwrap();
    let content: Vec<_> =
        told.0.iter().filter(|(_, change)| change.what.content || change.before.is_none()).collect();
    assert_eq!(
        content.iter().map(|(path, _)| path.as_slice()).collect::<Vec<_>>(),
        [&b"/larger"[..], b"/new", b"/touched"]
    );
}

#[test]
fn what_is_not_understood_is_named() {
    let disk = Image::new("-t ext4 -b 4096 -O inline_data", "16M", |_| {}).bytes();
    match Ext4::open(Window::all(&disk), &Steps::default()) {
        Err(Error::Unsupported(what)) => assert_eq!(what, "the feature inline_data"),
        other => panic!("{:?}", other.err()),
    }
}
