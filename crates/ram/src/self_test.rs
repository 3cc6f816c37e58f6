use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use watari_types::{PAGE_SIZE, PageSet, RegionName};

use crate::memory::system;
use crate::write_protect::WriteProtect;
use crate::{Error, ProcessMemory, Range, Tracker, spawn};

/// Whether write-protect tracking works on this host, for real: starts a shell that waits for input, arms its
/// stack, writes to one page and expects just that from the tracker. The error says what does not work.
pub fn self_test() -> Result<(), Error> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "while read line; do echo \"$line\"; done"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut born = spawn(&mut command)?;
    let pid = born.child.id();
    let result = match born.uffd {
        Some(uffd) => wait_until_idle(&mut born.child).and_then(|()| {
            let memory = ProcessMemory::open(pid)?;
            let stack = stack_of(pid)?;
            let mut tracker = WriteProtect::arm(&memory, uffd, std::slice::from_ref(&stack))?;
            check_one_write(&memory, &stack, &mut tracker)
        }),
        None => Err(Error::SelfTest("the kernel refused to make a userfaultfd in a new process")),
    };
    let ended = born.child.kill().and_then(|()| born.child.wait());
    ended.map_err(|source| system("ending the test process", pid, source))?;
    result
}

/// After an echo the shell sits in `read` and writes nothing.
fn wait_until_idle(child: &mut Child) -> Result<(), Error> {
    let (Some(input), Some(output)) = (child.stdin.as_mut(), child.stdout.as_mut()) else {
        return Err(Error::SelfTest("the test process has no pipes"));
    };
    let mut line = String::new();
    let echoed = input.write_all(b"ready\n").and_then(|()| BufReader::new(output).read_line(&mut line));
    echoed.map_err(|source| system("talking to the test process", child.id(), source)).map(drop)
}

fn stack_of(pid: u32) -> Result<Range, Error> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
    let maps = maps.map_err(|source| system("reading the memory map", pid, source))?;
    let addresses = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    match (addresses, RegionName::ram("stack")) {
        (Some((start, end)), Ok(name)) => Ok(Range::new(name, start, end - start)),
        _ => Err(Error::SelfTest("the test process has no stack to write to")),
    }
}

fn check_one_write(memory: &ProcessMemory, stack: &Range, tracker: &mut dyn Tracker) -> Result<(), Error> {
    let page = stack.pages() / 2;
    let address = stack.start + u64::from(page) * PAGE_SIZE as u64;
    let mut byte = [0];
    memory.read(address, &mut byte)?;
    let mut scan = || {
        let mut written = [PageSet::new()];
        tracker.scan(&mut written).map(|()| written[0].contains(page))
    };
    if scan()? {
        return Err(Error::SelfTest("a page counts as written though nobody wrote it"));
    }
    memory.write(address, &byte)?;
    if !scan()? {
        return Err(Error::SelfTest("a written page was not reported"));
    }
    if scan()? {
        return Err(Error::SelfTest("a page counts as written for ever after one write"));
    }
    Ok(())
}
