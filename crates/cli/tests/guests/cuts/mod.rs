//! A keeper, or its QEMU, that is killed at any step of a capture loses nothing: the older snapshots are whole, nothing
//! half-made is visible, and what the next checkpoint captures is right to the last stamp. Without its keeper the guest
//! goes on; without QEMU it is crashed, and a restore brings it back.
//!
//! Each step of publishing is cut, and of those leading up to it every twelfth, from another one each time;
//! `WATARI_CUTS=all` cuts all of them.

mod tracer;

use std::io::Write;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use serde_json::Value;

use self::tracer::{Cut, Seen, watch};
use crate::lab::{Lab, numbers, text, wait};

const STAMPS: &str = "watari.run=stamp watari.args=mem=4M,mem-rate=2,disk-rate=0.5";
/// Of the steps leading up to the publishing, one in so many is cut by default.
const STRIDE: usize = 12;
/// One cut in so many is followed by a restore also where nothing was published.
const RESTORES: usize = 8;

#[test]
fn a_keeper_that_is_killed_at_any_step_of_a_capture_loses_nothing() {
    each_step_is_cut(|cuts, cut| cuts.keeper_is_killed(cut));
}

#[test]
fn a_qemu_that_is_killed_at_any_step_of_a_capture_takes_nothing_with_it() {
    each_step_is_cut(|cuts, cut| cuts.qemu_is_killed(cut));
}

/// Cuts one capture after the other. `survives` is false if a capture had no such step: it got through.
fn each_step_is_cut(survives: impl Fn(&mut Cuts<'_>, Cut) -> bool) {
    let lab = Lab::new();
    lab.start_demo("m", "96M", "4M", STAMPS, "STAMP pass=1");
    lab.ok(&["checkpoint", "m"]);
    let keeper = lab.pid("m", "keeper_pid");
    let whole = match watch(keeper, Cut::Never, keeper) {
        Ok(watched) => {
            lab.ok(&["checkpoint", "m"]);
            watched.seen()
        }
        Err(error @ (Errno::EPERM | Errno::ENOSYS)) => {
            // Past what the test runner captures: it is to be seen.
            let skipped = "SKIPPED: ptrace is not allowed here, so nothing was killed in a capture";
            let mut seen = std::io::stderr();
            writeln!(seen, "{skipped} ({error})").unwrap();
            return;
        }
        Err(error) => panic!("the keeper cannot be watched: {error}"),
    };
    for (number, step) in whole.steps.iter().enumerate() {
        eprintln!("step {}: {} {}", number + 1, step.call, step.on);
    }
    for (call, on) in
        [("renameat", ".pack"), ("renameat2", "/refs/"), ("renameat", "/head"), ("rename", "/state.json")]
    {
        assert!(whole.did(call, on), "a capture without {call} on {on}: this test watches the wrong calls");
    }
    let (first, stride) = if std::env::var_os("WATARI_CUTS").is_some_and(|cuts| cuts == "all") {
        (0, 1)
    } else {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as usize % STRIDE, STRIDE)
    };
    let mut cuts = Cuts { lab: &lab, made: 0, published: 0 };
    // A step that is not in each capture may be missing this time.
    let chosen = whole.leading_up().into_iter().skip(first).step_by(stride);
    let leading_up = chosen.filter(|cut| survives(&mut cuts, *cut)).count();
    let publishing = (1..).take_while(|number| survives(&mut cuts, Cut::Publishing(*number))).count();
    cuts.comes_back_right(cuts.newest());
    eprintln!("{leading_up} cuts leading up (every {stride}. from {first}), {publishing} in publishing:");
    eprintln!("{} cuts, {} of them with the snapshot published", cuts.made, cuts.published);
}

struct Cuts<'a> {
    lab: &'a Lab,
    made: usize,
    published: usize,
}

impl Cuts<'_> {
    fn keeper_is_killed(&mut self, cut: Cut) -> bool {
        let (keeper, qemu) = (self.lab.pid("m", "keeper_pid"), self.lab.pid("m", "qemu_pid"));
        let before = self.generations();
        let Some((capture, seen)) = self.capture(cut, keeper) else { return false };
        let published = seen.did("renameat2", "/refs/");
        assert!(published || !capture.status.success(), "not published, but the command succeeded");
        self.goes_on_with_another_keeper(keeper, qemu);

        let after = self.generations();
        assert_eq!(after[usize::from(published)..], before, "published: {published}, now {after:?}");
        self.whole();
        let next = self.next_after(after[0]);
        self.made += 1;
        if published {
            self.published += 1;
            self.comes_back_right(after[0]);
        }
        if published || self.made.is_multiple_of(RESTORES) {
            self.comes_back_right(next);
        }
        true
    }

    fn qemu_is_killed(&mut self, cut: Cut) -> bool {
        let before = self.generations();
        let Some((capture, _)) = self.capture(cut, self.lab.pid("m", "qemu_pid")) else { return false };
        // What it had of the guest by then may have been all of it: a keeper tells what it made of that.
        let published = capture.status.success();
        if !published {
            let said: Value = serde_json::from_slice(&capture.stdout).unwrap();
            assert_eq!(said["error"]["kind"], "qemu", "{said}");
        }
        self.lab.wait_for_state("m", "crashed");

        let after = self.generations();
        assert_eq!(after[usize::from(published)..], before, "published: {published}, now {after:?}");
        self.whole();
        self.comes_back_right(after[0]);
        let next = self.next_after(after[0]);
        self.made += 1;
        self.published += usize::from(published);
        if self.made.is_multiple_of(RESTORES) {
            self.comes_back_right(next);
        }
        true
    }

    /// Makes a capture in which the victim is killed; `None` if it had no such step.
    fn capture(&self, cut: Cut, victim: u32) -> Option<(Output, Seen)> {
        let watched = watch(self.lab.pid("m", "keeper_pid"), cut, victim).unwrap();
        let capture = self.lab.watari(&["checkpoint", "m", "--json"]).output().unwrap();
        let seen = watched.seen();
        if !seen.killed {
            eprintln!("{cut:?}: got through");
            assert!(capture.status.success(), "{}", text(&capture.stdout));
            return None;
        }
        let last = seen.steps.last().unwrap();
        let said = text(&capture.stdout);
        eprintln!("{cut:?}: before {} {}: {}", last.call, last.on, said.trim());
        Some((capture, seen))
    }

    /// The next checkpoint, which must be complete.
    fn next_after(&self, generation: u64) -> u64 {
        let next = self.lab.ok(&["checkpoint", "m"])["generation"].as_u64().unwrap();
        assert_eq!(next, generation + 1);
        next
    }

    fn goes_on_with_another_keeper(&self, keeper: u32, qemu: u32) {
        let console = self.lab.listen("m");
        self.lab.wait_for_another_keeper("m", keeper);
        assert_eq!(self.lab.pid("m", "qemu_pid"), qemu);
        let said = console.wait_for("STAMP pass=");
        assert!(!said.contains("STAMP ERROR"), "{said}");
    }

    /// No snapshot is damaged, and what the killed keeper left unfinished is gone.
    fn whole(&self) {
        let report = self.lab.ok(&["verify"]);
        assert_eq!(report["damaged"], Value::Array(vec![]), "{report}");
        let tmp = self.lab.home().join("store/tmp");
        // The daemon may be collecting garbage just now: what that writes goes away by itself.
        wait("nothing to be left in the store's tmp folder", || {
            (std::fs::read_dir(&tmp).unwrap().count() == 0).then_some(())
        });
    }

    /// A snapshot is restored, and a complete check of all stamps begins and ends without a wrong page.
    fn comes_back_right(&self, generation: u64) {
        let console = self.lab.listen("m");
        self.lab.ok(&["restore", &format!("m@{generation}"), "--discard"]);
        let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
        let wrong: Vec<&str> = said.lines().filter(|line| line.contains("STAMP ERROR")).collect();
        assert!(wrong.is_empty(), "m@{generation}: {} wrong pages, first: {:?}", wrong.len(), wrong[0]);
    }

    fn newest(&self) -> u64 {
        self.generations()[0]
    }

    /// The generations that are listed, newest first.
    fn generations(&self) -> Vec<u64> {
        self.lab.generations("m")
    }
}
