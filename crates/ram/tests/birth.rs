//! A process that was born with a userfaultfd behaves as any other.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, kill_current_process_group};
use watari_ram::{Error, ProcessMemory, RemoteFd, spawn};

fn output_of(command: &mut Command) -> (String, std::process::ExitStatus, Option<RemoteFd>) {
    let mut born = spawn(command.stdout(Stdio::piped())).unwrap();
    let mut text = String::new();
    born.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    (text, born.child.wait().unwrap(), born.uffd)
}

#[test]
fn write_protect_tracking_works_where_the_kernel_has_it() {
    let kernel = rustix::system::uname();
    let release = kernel.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let answer = watari_ram::self_test();
    if version >= (6, 7) && cfg!(target_arch = "x86_64") {
        answer.unwrap();
    } else {
        answer.unwrap_err();
    }
}

#[test]
fn a_born_process_runs_to_its_end_and_no_trap_is_left() {
    for _ in 0..50 {
        let (text, status, uffd) = output_of(Command::new("/bin/echo").arg("hello"));
        assert_eq!((text.as_str(), status.code()), ("hello\n", Some(0)));
        assert!(uffd.is_some());
    }
    let (_, status, _) = output_of(Command::new("/bin/sh").args(["-c", "exit 7"]));
    assert_eq!(status.code(), Some(7));
}

#[test]
fn nobody_traces_it_and_its_signals_are_as_inherited() {
    let lines = ["TracerPid", "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "SigPnd", "NoNewPrivs", "Seccomp"];
    // Setting the group makes std fork, as it has to for a birth; posix_spawn inherits a little less.
    let group = rustix::process::getgid().as_raw();
    let plain = Command::new("/bin/cat").arg("/proc/self/status").gid(group).output().unwrap();
    let plain = String::from_utf8(plain.stdout).unwrap();
    let (text, exit, _) = output_of(Command::new("/bin/cat").arg("/proc/self/status"));
    assert!(exit.success());
    let of_interest = |line: &&str| line.split_once(':').is_some_and(|(name, _)| lines.contains(&name));
    let born: Vec<&str> = text.lines().filter(of_interest).collect();
    assert_eq!(born.len(), 8);
    for line in born {
        assert!(plain.lines().any(|other| other == line), "{line} differs from {plain}");
    }
}

#[test]
fn one_descriptor_more_is_open_and_it_closes_on_exec() {
    let list = "readlink /proc/$$/fd/* || true";
    let script = format!("{list}; echo; exec /bin/sh -c '{list}'");
    let (listed, _, _) = output_of(Command::new("/bin/sh").args(["-c", &script]));
    let (before, after) = listed.split_once("\n\n").unwrap();
    assert_eq!(before.matches("userfaultfd").count(), 1, "{before}");
    assert!(!after.contains("userfaultfd"), "{after}");
}

#[test]
fn an_unprivileged_process_gets_one_too() {
    let (text, status, uffd) = output_of(Command::new("/usr/bin/id").arg("-u").uid(65534).gid(65534));
    assert_eq!((text.as_str(), status.code()), ("65534\n", Some(0)));
    assert!(uffd.is_some());
}

#[test]
fn a_program_that_does_not_exist_is_an_error_that_names_it() {
    let error = spawn(&mut Command::new("/nowhere/at-all")).unwrap_err();
    assert!(matches!(error, Error::Spawn { .. }) && error.to_string().contains("/nowhere/at-all"), "{error}");
}

#[test]
fn births_on_many_threads_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for _ in 0..20 {
                    let (text, status, _) = output_of(Command::new("/bin/echo").arg(thread.to_string()));
                    assert_eq!((text.trim(), status.code()), (thread.to_string().as_str(), Some(0)));
                }
            });
        }
    });
}

#[test]
fn signals_to_the_whole_process_group_do_not_hold_a_birth_up() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // One that everybody ignores, and that stops a traced process all the same.
                kill_current_process_group(Signal::WINCH).unwrap();
            }
        });
        for _ in 0..100 {
            let (text, status, _) = output_of(Command::new("/bin/echo").arg("hello"));
            assert_eq!((text.as_str(), status.code()), ("hello\n", Some(0)));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_process_killed_right_after_birth_is_reported_by_its_wait() {
    let mut born = spawn(Command::new("/bin/sleep").arg("1000")).unwrap();
    let memory = ProcessMemory::open(born.child.id()).unwrap();
    born.child.kill().unwrap();
    assert_eq!(born.child.wait().unwrap().signal(), Some(9));
    assert!(matches!(memory.read(0x1000, &mut [0; 8]), Err(Error::Gone { .. })));
    assert!(matches!(memory.write(0x1000, &[0; 8]), Err(Error::Gone { .. })));
    assert!(matches!(ProcessMemory::open(born.child.id()), Err(Error::Gone { .. })));
}

#[test]
fn a_remote_descriptor_is_written_down_as_a_number() {
    assert_eq!(serde_json::to_string(&RemoteFd(3)).unwrap(), "3");
    assert_eq!(serde_json::from_str::<RemoteFd>("3").unwrap(), RemoteFd(3));
}
