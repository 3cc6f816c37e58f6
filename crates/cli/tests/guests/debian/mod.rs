//! Debian at work on ext4 and on two SQLite databases is captured, killed and restored 20 times, and is booted once.
//! Each time it goes on from where the snapshot was taken, and everything is as it was written: in the guest, which
//! reads it all again from its disk, and on the snapshot's disk, as a host would find it after a loss of power.

mod work;

use std::process::Stdio;

use crate::lab::chance::Chance;
use crate::lab::programs::Running;
use crate::lab::{Console, Lab, kill};

const ROUNDS: usize = 20;
const NAME: &str = "d";

#[test]
fn debian_is_killed_and_restored_20_times_and_its_file_system_and_databases_stay_whole() {
    let chance = Chance::new();
    let lab = Lab::new();
    work::create(&lab, NAME);
    work::start(&lab, NAME, chance.seed);
    let mut life = Life { console: lab.listen_from_start(NAME), lab: &lab, chance, taken: Vec::new() };
    let mut last_found: Option<work::OnDisk> = None;
    for round in 0..ROUNDS {
        life.is_captured();
        let end = End::ALL[round % End::ALL.len()];
        life.ends(end);
        let back_to = life.pick();
        life.is_restored(back_to);
        let found = work::on_disk(&lab, &format!("{NAME}@{}", back_to.generation));
        let ([from, to], on_disk) = ([back_to.printed_before, back_to.printed_after + 1], &found.counters);
        assert!(on_disk.iter().all(|n| (from..=to).contains(n)), "{on_disk:?} on the disk of {back_to:?}");
        if let Some(before) = &last_found {
            found.differs_as_told(&lab, before);
        }
        let checked = life.checks_everything();
        eprintln!("round {round}: {end:?}, back to {back_to:?}; on disk {on_disk:?}, checked at {checked}");
        last_found = Some(found);
    }
    let report = lab.ok(&["verify", NAME]);
    assert_eq!(report["damaged"].as_array().unwrap().len(), 0, "{report}");
}

/// How a machine ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Qemu,
    KeeperAndQemu,
    Command,
    Everything,
}

impl End {
    const ALL: [End; 4] = [End::Qemu, End::KeeperAndQemu, End::Command, End::Everything];
}

/// A snapshot, and which transaction was the last one on the console when it was asked for and when it was there.
#[derive(Clone, Copy, Debug)]
struct Taken {
    generation: u64,
    printed_before: u64,
    printed_after: u64,
}

/// The machine, from its boot or from its last restore on.
struct Life<'a> {
    lab: &'a Lab,
    chance: Chance,
    console: Console<'a>,
    taken: Vec<Taken>,
}

impl Life<'_> {
    /// A few snapshots at moments of no particular kind, sometimes under another keeper.
    fn is_captured(&mut self) {
        self.chance.sleep_ms(1500);
        if self.chance.once_in(4) {
            self.lab.replace_keeper(NAME);
        }
        for _ in 0..=self.chance.below(3) {
            self.chance.sleep_ms(600);
            let printed_before = self.last_printed();
            let done = self.lab.ok(&["checkpoint", NAME]);
            let generation = done["generation"].as_u64().unwrap();
            self.taken.push(Taken { generation, printed_before, printed_after: self.last_printed() });
        }
    }

    /// The machine is ended while it works, or while it is captured.
    fn ends(&mut self, how: End) {
        if !self.chance.once_in(3) {
            self.chance.sleep_ms(1500);
            return self.is_ended(how);
        }
        let printed_before = self.last_printed();
        let mut capture = self.lab.watari(&["checkpoint", NAME, "--json"]);
        let mut capture = Running::start(capture.stdout(Stdio::null()).stderr(Stdio::null()));
        self.chance.sleep_ms(150);
        self.is_ended(how);
        capture.0.wait().unwrap();
        let generation = self.lab.generations(NAME)[0];
        if self.taken.iter().all(|taken| taken.generation != generation) {
            self.taken.push(Taken { generation, printed_before, printed_after: self.last_printed() });
        }
    }

    fn is_ended(&self, how: End) {
        let lab = self.lab;
        let [qemu, keeper] = ["qemu_pid", "keeper_pid"].map(|which| lab.pid(NAME, which));
        match how {
            End::Command => {
                lab.ok(&["kill", NAME]);
                lab.wait_for_state(NAME, "stopped");
                return;
            }
            End::Qemu => kill(qemu),
            End::KeeperAndQemu => [keeper, qemu].into_iter().for_each(kill),
            End::Everything => {
                let node = lab.ok(&["up"])["pid"].as_u64().unwrap() as u32;
                [node, keeper, qemu].into_iter().for_each(kill);
                lab.ok(&["up"]);
            }
        }
        lab.wait_for_state(NAME, "crashed");
    }

    /// The newest snapshot, or now and then any other one.
    fn pick(&mut self) -> Taken {
        let newest = self.taken.len() - 1;
        let chosen =
            if self.chance.once_in(4) { self.chance.below(newest as u64 + 1) as usize } else { newest };
        self.taken[chosen]
    }

    /// It goes on with the transaction that it was at. Of the one that was being printed, the line may be in two parts.
    fn is_restored(&mut self, back_to: Taken) {
        self.console = self.lab.listen(NAME);
        self.lab.ok(&["restore", &format!("{NAME}@{}", back_to.generation), "--discard"]);
        let said = self.console.wait_until("a transaction", |text| !commits(text).is_empty());
        let first = commits(&said)[0];
        let expected = back_to.printed_before + 1..=back_to.printed_after + 2;
        assert!(expected.contains(&first), "goes on with {first}: {back_to:?}");
    }

    /// Waits for a check that the guest began after it was restored; at which transaction it did.
    fn checks_everything(&self) -> u64 {
        let checked = |text: &str| {
            let begun = all(text, "CHECKING ");
            all(text, "CHECKED ").into_iter().find(|n| begun.contains(n))
        };
        let is_over = |text: &str| text.contains("WRONG") || checked(text).is_some();
        let said = self.console.wait_until("everything to be checked", is_over);
        for sign in ["WRONG", "EXT4-fs error", "I/O error"] {
            assert!(!said.contains(sign), "{said}");
        }
        let commits = commits(&said);
        assert!(commits.windows(2).all(|pair| pair[1] == pair[0] + 1), "{commits:?}");
        checked(&said).unwrap()
    }

    /// The last transaction on the console.
    fn last_printed(&self) -> u64 {
        *commits(&self.console.wait_until("a transaction", |text| !commits(text).is_empty())).last().unwrap()
    }
}

fn commits(console: &str) -> Vec<u64> {
    all(console, "COMMIT ")
}

/// The numbers in all complete lines `WORD n.`, none of which the kernel has broken into.
fn all(console: &str, word: &str) -> Vec<u64> {
    let complete = console.rfind('\n').map_or("", |end| &console[..end]);
    let number = |line: &str| line.trim_end().strip_prefix(word)?.strip_suffix('.')?.parse().ok();
    complete.lines().filter_map(number).collect()
}
