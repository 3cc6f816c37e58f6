//! The tests' side: starts the load, tells it what to do, and ends it whatever happens.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use watari_ram::{Backing, ProcessMemory, Range, RemoteFd, spawn};
use watari_types::{PAGE_SIZE, RegionName};

use super::Kind;
use super::server::{ASKED, MARK};

pub struct Load {
    pub child: Child,
    pub uffd: Option<RemoteFd>,
    pub kernel_waits: bool,
    pub memory: ProcessMemory,
    pub ranges: Vec<Range>,
    /// The addresses of the storm's gate: closed, inside.
    gate: Option<(u64, u64)>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts a load with these areas, each of at least `pages` pages, huge ones where they can be had.
    pub fn start(kinds: &[Kind], pages: usize) -> Load {
        Load::start_with(kinds, pages, "huge")
    }

    /// The same without huge pages, of which the kernel reports more than was written when it splits them.
    pub fn start_small(kinds: &[Kind], pages: usize) -> Load {
        Load::start_with(kinds, pages, "small")
    }

    fn start_with(kinds: &[Kind], pages: usize, size: &str) -> Load {
        // The link works also where the path of the binary is closed to an unprivileged user.
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "load_process", "--nocapture", "--test-threads=1"]).env(ASKED, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut born = spawn(&mut command).unwrap();
        let answers = BufReader::new(born.child.stdout.take().unwrap());
        let memory = ProcessMemory::open(born.child.id()).unwrap();
        let mut load = Load {
            child: born.child,
            uffd: born.uffd,
            kernel_waits: born.kernel_waits,
            memory,
            ranges: Vec::new(),
            gate: None,
            answers,
        };
        for kind in kinds {
            let answer = load.ask(&format!("map {kind:?} {pages} {size}"));
            let numbers: Vec<i64> = answer.split(' ').map(|word| word.parse().unwrap()).collect();
            load.add_range(*kind, numbers[0] as u64, numbers[1] as u64 * PAGE_SIZE as u64, numbers[2]);
        }
        load
    }

    fn add_range(&mut self, kind: Kind, start: u64, bytes: u64, fd: i64) {
        let name = RegionName::ram(&format!("area{}", self.ranges.len())).unwrap();
        let mut range = Range::new(name, start, bytes);
        let file = || Arc::new(File::open(format!("/proc/{}/fd/{fd}", self.pid())).unwrap().into());
        range.backing = match kind {
            Kind::Anonymous => Backing::Anonymous,
            Kind::SharedMemfd => Backing::Shared(file()),
            Kind::PrivateMemfd | Kind::SparseMemfd => Backing::Private(file()),
        };
        self.ranges.push(range);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line without waiting for the answer.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the load died");
            if let Some(answer) = line.strip_prefix(MARK) {
                return answer.trim().to_owned();
            }
        }
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// Whether the answer to what was told last is there.
    pub fn is_done(&self) -> bool {
        let out = self.answers.get_ref().as_fd();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !self.answers.buffer().is_empty()
            || poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&now)).unwrap() > 0
    }

    /// Lets a storm rage whose threads can be held.
    pub fn storm(&mut self, seed: u32, threads: u64, writes: u64) {
        let addresses = self.ask("gate");
        let (closed, inside) = addresses.split_once(' ').unwrap();
        self.gate = Some((closed.parse().unwrap(), inside.parse().unwrap()));
        self.tell(&format!("storm {seed} {threads} {writes}"));
    }

    /// Holds the storm, and returns when its threads stand still.
    pub fn hold(&self) {
        let (closed, inside) = self.gate.unwrap();
        self.memory.write(closed, &1u64.to_ne_bytes()).unwrap();
        let mut writing = [1; 8];
        while u64::from_ne_bytes(writing) != 0 {
            self.memory.read(inside, &mut writing).unwrap();
        }
    }

    pub fn go_on(&self) {
        self.memory.write(self.gate.unwrap().0, &0u64.to_ne_bytes()).unwrap();
    }

    /// The whole content of an area.
    pub fn content(&self, area: usize) -> Vec<u8> {
        let range = &self.ranges[area];
        let mut content = vec![0; range.bytes as usize];
        self.memory.read(range.start, &mut content).unwrap();
        content
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
