//! The server against whatever bytes a client sends: one disk, one input, and what must hold whatever it is.
//!
//! The fuzzer (`fuzz/`) and the replay of its corpus (`corpus.rs`) both go through [`face`]. An input is all that
//! one client says, from its handshake flags on. It is said twice to a fresh disk behind a real server: once by a
//! client that hears every answer to the end, once by one that leaves without having heard any.
//!
//! Then nobody has panicked; every request that arrived whole was answered, once, as the protocol has it
//! (`replies`); no more memory was taken than was sent or asked for with good reason (`allowance`); no thread of
//! the server is left; and what was sealed before is what it was.

pub(crate) mod dice;
pub(crate) mod memory;
pub(crate) mod messages;
pub(crate) mod mutants;
pub(crate) mod replies;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watari_disk::nbd::{Exports, ReadOnly, Server};
use watari_disk::{Base, Disk, Sealed};
use watari_types::{Generation, PAGE_SIZE};

use crate::common::{Memory, pattern};
use messages::{Command, Request};

/// The disk `d`: small, so that answering takes little memory and what a client announces stands out.
pub(crate) const DISK: u64 = 1 << 20;
/// The read-only export `r`, which ends within a page.
pub(crate) const READ_ONLY: u64 = DISK - 1000;
/// What is sealed while the client is served.
const SEALED: std::ops::Range<u32> = 2..10;

/// How long anything may take before it counts as hanging; never waited for otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// What both exports have at first. Made once, for that takes longer than most inputs do.
static CONTENT: LazyLock<Arc<Memory>> =
    LazyLock::new(|| Arc::new(Memory(pattern((DISK / PAGE_SIZE as u64) as u32))));

/// Panics of any thread so far.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Lets a server face a client that says `input`, and panics unless all holds that must.
pub(crate) fn face(input: &[u8]) {
    count_panics();
    let panics = PANICS.load(Ordering::SeqCst);
    memory::not_counted_here();
    let served = Served::start();
    memory::begin();
    let heard = served.hear_out(input);
    served.leave_at_once(input);
    await_the_end_of_threads();
    let taken = memory::most_since_begin();

    assert_eq!(PANICS.load(Ordering::SeqCst), panics, "a thread of the server panicked");
    let requests = replies::check(input, &heard);
    let allowed = allowance(input.len(), &requests);
    assert!(taken <= allowed, "{taken} bytes were taken where {allowed} do, for {} sent", input.len());
    served.has_kept_what_was_sealed();
}

/// Has panics counted, whoever's they are: that of a server's thread would otherwise be seen by nobody.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
}

/// The memory that a server may take for one client that sent `sent` bytes, among them these requests.
///
/// - 512 KiB whatever happens: a payload's first 256, announced or not; buffers of a fixed size, an option and its
///   replies, threads, kept pages.
/// - Three times what was sent: a payload grows as it arrives, by doubling, and is there twice while it moves.
/// - What answering takes, of the eight most expensive requests, for no more are performed at a time.
fn allowance(sent: usize, requests: &[Request]) -> usize {
    let mut answers: Vec<usize> = requests.iter().map(answer_takes).collect();
    answers.sort_unstable_by(|a, b| b.cmp(a));
    (512 << 10) + 3 * sent + answers.iter().take(8).sum::<usize>()
}

/// What a request within the device may take to be answered; one beyond its end is refused, and takes nothing.
fn answer_takes(request: &Request) -> usize {
    if request.end().is_none_or(|end| end > DISK) {
        return 0;
    }
    match request.command() {
        // The data, and a page at each end that is not read to its border.
        Some(Command::Read) => request.len as usize + 2 * PAGE_SIZE,
        // Where the file system cannot make zeros, they are written.
        Some(Command::WriteZeroes) => request.len as usize,
        // A word of pages at a time, and which of them have data.
        Some(Command::Cache) => 64 * PAGE_SIZE + (16 << 10),
        Some(Command::BlockStatus) => 32 << 10,
        _ => 0,
    }
}

struct Served {
    folder: TempDir,
    sealed: Sealed,
    _server: Server,
}

impl Served {
    fn start() -> Served {
        // In memory where that is possible: a fuzzer makes thousands a second.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let base = Base { source: CONTENT.clone(), generation: Generation(0) };
        let disk = Disk::create(&folder.path().join("0.raw"), DISK, Some(base)).unwrap();
        for page in SEALED {
            disk.write_at(u64::from(page) * PAGE_SIZE as u64, &[page as u8; PAGE_SIZE]).unwrap();
        }
        let sealed = disk.seal();
        let mut exports = Exports::new();
        exports.insert("d".into(), Arc::new(disk));
        exports.insert("r".into(), Arc::new(ReadOnly::new(CONTENT.clone(), READ_ONLY)));
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let server = Server::start(listener, exports).unwrap();
        Served { folder, sealed, _server: server }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Says `input`, then that this is all, and listens until the server has nothing more to say.
    fn hear_out(&self, input: &[u8]) -> Vec<u8> {
        let stream = self.connect();
        let mut heard = Vec::new();
        thread::scope(|scope| {
            // Beside listening: a server that cannot send its replies reads no more requests.
            scope.spawn(|| {
                memory::not_counted_here();
                // The server may have left already.
                let _ = (&stream).write_all(input);
                let _ = stream.shutdown(Shutdown::Write);
            });
            match (&stream).read_to_end(&mut heard) {
                Err(err) if err.kind() != io::ErrorKind::ConnectionReset => panic!("the server hangs: {err}"),
                _ => {}
            }
        });
        heard
    }

    /// Says as much of `input` as the socket takes and closes it.
    fn leave_at_once(&self, input: &[u8]) {
        let mut stream = self.connect();
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write_all(input);
    }

    fn has_kept_what_was_sealed(&self) {
        let mut content = [0; PAGE_SIZE];
        for page in SEALED {
            self.sealed.read(page, &mut content).unwrap();
            assert_eq!(content, [page as u8; PAGE_SIZE], "sealed page {page} has changed");
        }
    }
}

/// Waits until no thread serves a client any more.
fn await_the_end_of_threads() {
    let deadline = Instant::now() + PATIENCE;
    while serving_threads() > 0 {
        assert!(Instant::now() < deadline, "{} threads serve a client that has left", serving_threads());
        thread::yield_now();
    }
}

fn serving_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that has just ended has no name any more.
    let name = |task: io::Result<std::fs::DirEntry>| std::fs::read(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name == b"disk-nbd\n").count()
}
