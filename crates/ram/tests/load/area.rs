//! The load's memory: the only `unsafe` of these tests.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use watari_types::PAGE_SIZE;

use super::Kind;

const WORDS: usize = PAGE_SIZE / 8;
const HUGE: usize = 2 << 20;

pub struct Area {
    pub kind: Kind,
    pub file: Option<File>,
    words: &'static [AtomicU64],
    /// Where the kernel reads from when it writes to the area: a page full of each byte.
    source: File,
}

impl Area {
    /// Maps room for whole huge pages, and asks for them to be used or not.
    pub fn map(kind: Kind, pages: usize, huge: bool) -> Area {
        let bytes = (pages * PAGE_SIZE).next_multiple_of(HUGE);
        let file = (kind != Kind::Anonymous).then(|| memfd(bytes));
        if let (Kind::PrivateMemfd, Some(file)) = (kind, &file) {
            for page in 0..bytes / PAGE_SIZE {
                file.write_all_at(&[(page % 251) as u8; PAGE_SIZE], (page * PAGE_SIZE) as u64).unwrap();
            }
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, with room to align it.
        let room =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes + HUGE, access, MapFlags::PRIVATE).unwrap() };
        let start = room.cast::<u8>().wrapping_add(room.cast::<u8>().align_offset(HUGE)).cast();
        if let Some(file) = &file {
            let sharing = if kind == Kind::SharedMemfd { MapFlags::SHARED } else { MapFlags::PRIVATE };
            // SAFETY: it replaces a part of the mapping just made, which nothing refers to yet.
            unsafe { mmap(start, bytes, access, sharing | MapFlags::FIXED, file.as_fd(), 0).unwrap() };
        }
        let advice = if huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
        // SAFETY: advice on the mapping just made; it changes no content.
        unsafe { madvise(start, bytes, advice).unwrap() };
        // SAFETY: the mapping is aligned, zeroed or filled, never unmapped, and only used through atomics.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / 8) };
        let source = memfd(256 * PAGE_SIZE);
        for byte in 0..256 {
            source.write_all_at(&[byte as u8; PAGE_SIZE], (byte * PAGE_SIZE) as u64).unwrap();
        }
        Area { kind, file, words, source }
    }

    pub fn pages(&self) -> usize {
        self.words.len() / WORDS
    }

    pub fn address(&self) -> usize {
        self.words.as_ptr().addr()
    }

    pub fn store(&self, page: usize, word: usize, value: u64) {
        self.words[page * WORDS + word % WORDS].store(value, Ordering::Relaxed);
    }

    pub fn load(&self, page: usize) -> u64 {
        self.words[page * WORDS].load(Ordering::Relaxed)
    }

    /// Has the kernel fill a page with a byte.
    pub fn kernel_store(&self, page: usize, byte: u8) {
        let target = self.words[page * WORDS..(page + 1) * WORDS].as_ptr().cast_mut().cast();
        let offset = i64::from(byte) * PAGE_SIZE as i64;
        // SAFETY: the target is one page of the area, and its words are atomics, so they may change any time.
        let read = unsafe { libc::pread(self.source.as_raw_fd(), target, PAGE_SIZE, offset) };
        assert_eq!(read, PAGE_SIZE as isize);
    }

    pub fn advise(&self, page: usize, pages: usize, advice: Advice) {
        let words = &self.words[page * WORDS..(page + pages) * WORDS];
        let start = words.as_ptr().cast_mut().cast();
        // SAFETY: the advice may change content; the words are atomics, so they may change any time.
        unsafe { madvise(start, size_of_val(words), advice).unwrap() };
    }

    /// Has the kernel forget the content: of the file where it is shared, of our own copies where not.
    pub fn drop_pages(&self, page: usize, pages: usize) {
        if let (Some(file), Kind::SharedMemfd) = (&self.file, self.kind) {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, how, (page * PAGE_SIZE) as u64, (pages * PAGE_SIZE) as u64).unwrap();
        }
        // QEMU does this after punching a hole, too. It makes the kernel give back page tables that are empty then.
        self.advise(page, pages, Advice::LinuxDontNeed);
    }
}

fn memfd(bytes: usize) -> File {
    let fd = memfd_create("load", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, bytes as u64).unwrap();
    File::from(fd)
}

/// Forks a child that shares all memory copy-on-write for a moment.
pub fn fork_briefly() {
    // SAFETY: the child calls nothing but async-signal-safe functions and never returns.
    match unsafe { libc::fork() } {
        0 => {
            let pause = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            // SAFETY: both are async-signal-safe; nanosleep only reads the timespec.
            unsafe {
                libc::nanosleep(&pause, ptr::null_mut());
                libc::_exit(0)
            }
        }
        child => {
            assert!(child > 0, "fork failed");
            // SAFETY: waits for our own child and wants no status.
            unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        }
    }
}
