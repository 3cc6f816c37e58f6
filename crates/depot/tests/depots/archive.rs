//! Exports into one file.

use std::fs;
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use watari_depot::Access;

use crate::{History, open};

/// An archive with some snapshots, sent one after the other.
fn archive(history: &History, path: &Path) {
    for at in [0, 1, 3] {
        history.send(at, &open(path, None, Access::Write).unwrap()).unwrap();
    }
}

#[test]
fn one_file_holds_what_a_folder_does_and_tar_unpacks_it() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("web.tar");
    archive(&history, &path);
    assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 3);
    let before = fs::read(&path).unwrap();
    assert_eq!(history.send(3, &open(&path, None, Access::Write).unwrap()).unwrap(), 0);
    assert_eq!(fs::read(&path).unwrap(), before);

    let unpacked = folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar =
        Command::new("tar").args(["-xf", "web.tar", "-C", "unpacked"]).current_dir(&folder).output().unwrap();
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_eq!(history.compare(&open(&unpacked, None, Access::Read).unwrap()), 3);
}

#[test]
fn wherever_it_is_cut_what_was_whole_before_is_and_the_next_try_goes_on() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("web.tar");
    archive(&history, &path);
    let whole = fs::read(&path).unwrap();
    let mut rng = Rng::with_seed(1);
    let blocks = (0..=whole.len()).step_by(512).filter(|at| at % 7 == 0 || *at > whole.len() - 8192);
    let anywhere: Vec<usize> = (0..60).map(|_| rng.usize(0..=whole.len())).collect();
    let mut last = 0;
    for cut in blocks.chain(anywhere) {
        fs::write(&path, &whole[..cut]).unwrap();
        // Before anything was there, there is nothing to be read.
        if let Ok(store) = open(&path, None, Access::Read) {
            last = last.max(history.compare(&store));
        }
        archive(&history, &path);
        assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 3, "cut at {cut}");
    }
    assert!(last > 0);
}

#[test]
fn a_member_without_its_header_is_none() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("web.tar");
    history.send(0, &open(&path, None, Access::Write).unwrap()).unwrap();
    let first = fs::read(&path).unwrap();
    history.send(1, &open(&path, None, Access::Write).unwrap()).unwrap();
    // As the power may leave it: the next member's content is there, torn, and its header is not.
    let mut torn = fs::read(&path).unwrap();
    let end = first.len() - 1024;
    torn[end..end + 512].fill(0);
    torn[end + 700..].fill(0xEE);
    fs::write(&path, torn).unwrap();
    assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 1);
    history.send(1, &open(&path, None, Access::Write).unwrap()).unwrap();
    assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 2);
}

/// What is behind it would seem not to be there, and the next member would be written over it.
#[test]
fn a_flipped_bit_in_a_header_is_found_and_nothing_is_written() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("web.tar");
    archive(&history, &path);
    let whole = fs::read(&path).unwrap();
    let is_header = |at: &usize| whole[at + 257..].starts_with(b"ustar");
    let headers: Vec<usize> = (512..whole.len() - 1024).step_by(512).filter(is_header).collect();
    assert!(headers.len() > 8);
    let mut random = Rng::with_seed(2);
    for header in headers {
        // What is behind the checksum's digits is no part of them.
        for at in [header, header + random.usize(1..154), header + random.usize(156..512)] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << random.u8(0..8);
            fs::write(&path, &flipped).unwrap();
            for access in [Access::Read, Access::Write] {
                let refused = open(&path, None, access).err().unwrap().report();
                assert!(refused.message.contains(&format!("the header at byte {header}")), "{refused:?}");
            }
            assert!(fs::read(&path).unwrap() == flipped);
        }
    }
}

#[test]
fn another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("letter.tar", b"Dear".to_vec()), ("noise.tar", vec![7; 4096])] {
        let path = folder.path().join(name);
        fs::write(&path, &content).unwrap();
        for access in [Access::Read, Access::Write] {
            let refused = open(&path, None, access).err().unwrap().report();
            assert!(refused.message.contains("not an export"), "{refused:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let path = folder.path().join("other.tar");
    let tar =
        Command::new("tar").args(["-cf", "other.tar", "letter.tar"]).current_dir(&folder).status().unwrap();
    assert!(tar.success());
    let before = fs::read(&path).unwrap();
    assert!(open(&path, None, Access::Write).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn two_do_not_write_to_one_file() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("web.tar");
    let one = open(&path, None, Access::Write).unwrap();
    let refused = open(&path, None, Access::Write).err().unwrap().report();
    assert!(refused.message.contains("somebody else is writing"), "{refused:?}");
    history.send(0, &one).unwrap();
    assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 1);
}
