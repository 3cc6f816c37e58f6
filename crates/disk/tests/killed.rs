//! A process killed at any moment loses nothing it acknowledged: neither content nor marks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{memory, pattern, place};
use watari_disk::Disk;
use watari_types::{Generation, PAGE_SIZE};

const PAGES: u32 = 300;
const BYTES: usize = PAGES as usize * PAGE_SIZE;
/// What the child is told: the folder in which it finds disk and socket.
const FOLDER: &str = "WATARI_TEST_DISK_FOLDER";
/// Sent by the child before it publishes; everything else it sends is an acknowledged write's number.
const PUBLISHING: u64 = u64::MAX;

/// The `number`th write: of a page, a few sectors, or some pages.
fn write(number: u64) -> (usize, Vec<u8>) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let len = [512, 4096, 1536, 4096, 20_480][(mixed % 5) as usize];
    let unit = if len % 4096 == 0 { 4096 } else { 512 };
    let at = (mixed >> 8) as usize % ((BYTES - len) / unit) * unit;
    (at, (number as u32 | 1 << 31).to_le_bytes().repeat(len / 4))
}

#[test]
#[ignore = "a part of the test below, which runs it in a process of its own"]
fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let disk = Disk::open(&folder.join("0.raw"), memory(&pattern(PAGES))).unwrap();
    let mut parent = UnixStream::connect(folder.join("acknowledged")).unwrap();
    let _hydration = disk.hydrate();
    let mut page = [0; PAGE_SIZE];
    for number in 0..=u64::MAX {
        let (at, data) = write(number);
        disk.write_at(at as u64, &data).unwrap();
        parent.write_all(&number.to_le_bytes()).unwrap();
        match number % 40 {
            7 => drop(disk.scan()),
            17 => drop(disk.seal()),
            37 => {
                let sealed = disk.seal();
                for number in sealed.pages().iter() {
                    sealed.read(number, &mut page).unwrap();
                }
                parent.write_all(&PUBLISHING.to_le_bytes()).unwrap();
                disk.published(sealed, Generation(1));
            }
            _ => {}
        }
    }
}

/// Kills its process when it goes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the child until it acknowledged so many writes and kills it; returns everything it sent.
fn run_and_kill(folder: &Path, after: u64) -> Vec<u64> {
    let listener = UnixListener::bind(folder.join("acknowledged")).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn();
    let child = Killed(child.unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    let mut sent = Vec::new();
    let mut record = [0; 8];
    while stream.read_exact(&mut record).is_ok() {
        sent.push(u64::from_le_bytes(record));
        if *sent.last().unwrap() == after {
            break;
        }
    }
    drop(child);
    while stream.read_exact(&mut record).is_ok() {
        sent.push(u64::from_le_bytes(record));
    }
    sent
}

#[test]
fn a_killed_process_loses_no_acknowledged_content_and_no_mark() {
    for after in [1, 5, 36, 37, 38, 100, 257, 600, 1001, 2500] {
        let (folder, path) = place();
        drop(Disk::create(&path, BYTES as u64, memory(&pattern(PAGES))).unwrap());
        let sent = run_and_kill(folder.path(), after);

        let mut content = pattern(PAGES);
        let mut published = content.clone();
        let mut next = 0;
        for number in sent {
            if number == PUBLISHING {
                published.copy_from_slice(&content);
                continue;
            }
            let (at, data) = write(number);
            content[at..at + data.len()].copy_from_slice(&data);
            next = number + 1;
        }
        assert!(next > after);
        // The write after the last acknowledged one may have happened in part.
        let mut with_next = content.clone();
        let (at, data) = write(next);
        with_next[at..at + data.len()].copy_from_slice(&data);

        let disk = Disk::open(&path, memory(&pattern(PAGES))).unwrap();
        let pending = disk.pending();
        for hydrated in [false, true] {
            let mut got = vec![0; BYTES];
            disk.read_at(0, &mut got).unwrap();
            let wrong = (0..BYTES).find(|at| got[*at] != content[*at] && got[*at] != with_next[*at]);
            assert_eq!(wrong, None, "after {next} writes, hydrated: {hydrated}");
            for page in 0..PAGES {
                let bytes = page as usize * PAGE_SIZE..(page as usize + 1) * PAGE_SIZE;
                let unchanged = got[bytes.clone()] == published[bytes];
                assert!(unchanged || pending.contains(page), "page {page} is forgotten after {next} writes");
            }
            disk.hydrate().wait();
        }
    }
}
