//! A disk whose server is killed and replaced: who uses it waits and goes on, and what was acknowledged is there. For a
//! guest, for another client that reconnects as QEMU does, and for one that comes later.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::lab::chance::Chance;
use crate::lab::programs::{self, Running, ServedDisk, program, run, said};
use crate::lab::{Lab, kill, numbers, wait};

/// Each write is one to the disk, so that their number says how far these got.
const DISK_STAMPS: &str = "watari.run=stamp watari.args=mem=1M,mem-rate=0,disk-rate=2";
/// The guest has the beginning of its disk, fio the rest.
const PART_STAMPED: &str = "watari.run=stamp watari.args=mem=1M,mem-rate=0,disk-rate=1,disk=4M";
const THE_REST: [&str; 2] = ["--offset=4M", "--size=28M"];
const DISK: &str = "32M";
const KILLS: usize = 8;
/// What only a hang takes.
const FIO_LIMIT: Duration = Duration::from_secs(240);

/// Waits for a complete check of all stamps that begins now, in which nothing is wrong. How many writes there were.
fn stamps_are_right(lab: &Lab) -> u64 {
    let said = lab.listen("m").wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!lab.serial("m").contains("STAMP ERROR"), "{said}");
    *numbers(&said, "seq=").last().unwrap()
}

#[test]
fn a_guest_goes_on_writing_each_time_its_keeper_is_killed_at_it() {
    let mut chance = Chance::new();
    let lab = Lab::new();
    lab.start_demo("m", "96M", "4M", DISK_STAMPS, "STAMP pass=1");
    let mut writes = stamps_are_right(&lab);
    for _ in 0..KILLS {
        chance.sleep_ms(700);
        lab.replace_keeper("m");
        let now = stamps_are_right(&lab);
        eprintln!("{} writes from before the keeper was killed until all were checked", now - writes);
        assert!(now > writes);
        writes = now;
    }
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["restore", "m"]);
    stamps_are_right(&lab);
}

/// QEMU's own client in a program of its own, with the guest's disk on one side and a server for others on the other.
struct Reconnecting {
    uri: String,
    _server: Running,
}

impl Reconnecting {
    fn to(lab: &Lab) -> Reconnecting {
        let socket = lab.home().join("run/fio");
        let disk = disk_socket(lab);
        let options = format!("driver=nbd,server.type=unix,server.path={disk},export=0,reconnect-delay=600");
        let mut command = program("qemu-nbd", ["--persistent", "--discard=unmap", "--image-opts", &options]);
        let server = Running::start(command.arg("--socket").arg(&socket));
        wait("qemu-nbd", || UnixStream::connect(&socket).ok());
        Reconnecting { uri: format!("nbd+unix:///?socket={}", socket.display()), _server: server }
    }
}

fn disk_socket(lab: &Lab) -> String {
    lab.home().join("run/m/disks").to_str().unwrap().to_owned()
}

/// fio on that part of the disk which the guest does not use. What it writes says of itself where it is and how long.
fn fio(uri: &str, more: &[&str]) -> Vec<String> {
    let uri = format!("--uri={uri}");
    let job = ["--name=v", "--thread", "--ioengine=nbd", &uri, "--iodepth=16", "--randrepeat=0"];
    let verify = ["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"];
    [&job[..], &THE_REST, &verify, more].concat().into_iter().map(str::to_owned).collect()
}

/// Kills keepers until fio is over; how many of them while it ran.
fn kill_keepers(lab: &Lab, chance: &mut Chance, fio: &mut Running) -> usize {
    let begun = Instant::now();
    let mut kills = 0;
    while !fio.is_over() {
        assert!(begun.elapsed() < FIO_LIMIT, "fio hangs");
        chance.sleep_ms(1000);
        let keeper = lab.pid("m", "keeper_pid");
        kill(keeper);
        kills += usize::from(!fio.is_over());
        lab.wait_for_another_keeper("m", keeper);
    }
    kills
}

#[test]
fn one_run_of_fio_verifies_all_it_wrote_while_keepers_are_killed_under_it() {
    let mut chance = Chance::new();
    let lab = Lab::new();
    lab.start_demo("m", "96M", DISK, PART_STAMPED, "STAMP pass=1");
    let before = stamps_are_right(&lab);
    let proxy = Reconnecting::to(&lab);
    let log = lab.home().join("fio.out");
    let mut kills = 0;
    // However fast this host is.
    while kills < KILLS {
        let file = File::create(&log).unwrap();
        // Pieces of another length each time, so that no old one is taken for a new one.
        let arguments =
            fio(&proxy.uri, &["--rw=randwrite", "--bssplit=512/20:4k/50:20k/30", "--fsync=64", "--loops=6"]);
        let mut command = program("fio", arguments);
        let mut fio = Running::start(command.stdout(file.try_clone().unwrap()).stderr(file));
        let killed = kill_keepers(&lab, &mut chance, &mut fio);
        let output = fs::read_to_string(&log).unwrap();
        assert!(fio.0.wait().unwrap().success() && output.contains("err= 0"), "{killed} kills\n{output}");
        eprintln!("{killed} keepers were killed while fio ran; {}", amounts(&output));
        kills += killed;
    }
    assert!(stamps_are_right(&lab) > before);
}

/// What fio says it has written and read.
fn amounts(output: &str) -> String {
    output.lines().map(str::trim).filter(|line| line.contains("IOPS=")).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_fio_was_told_is_written_outlives_the_keeper_and_is_in_the_snapshot() {
    let lab = Lab::new();
    lab.start_demo("m", "96M", DISK, PART_STAMPED, "STAMP pass=1");
    let disk = format!("nbd+unix:///0?socket={}", disk_socket(&lab));
    written(&disk, "4k");
    lab.replace_keeper("m");
    assert_holds(&disk, "4k");
    let generation = lab.ok(&["checkpoint", "m"])["generation"].as_u64().unwrap();
    lab.replace_keeper("m");
    written(&disk, "8k");
    lab.replace_keeper("m");
    assert_holds(&disk, "8k");

    let snapshot = ServedDisk::of(&lab, &format!("m@{generation}"));
    assert_holds(&snapshot.uri, "4k");
    drop(snapshot);
    lab.ok(&["restore", &format!("m@{generation}")]);
    assert_holds(&disk, "4k");
    stamps_are_right(&lab);
    lab.replace_keeper("m");
    assert_holds(&disk, "4k");
    stamps_are_right(&lab);
}

/// Writes without a flush, so that nothing but the answers promises that it is there.
fn written(uri: &str, block: &str) {
    let said = run("fio", fio(uri, &["--rw=randwrite", &format!("--bs={block}"), "--do_verify=0"]));
    assert!(said.contains("err= 0"), "{said}");
}

/// Whether everything there was written in blocks of such a length. Writes nothing.
fn holds(uri: &str, block: &str) -> Output {
    programs::outcome("fio", fio(uri, &["--readonly", "--rw=randread", &format!("--bs={block}")]))
}

/// It was written in such blocks and not in the others, which shows that old content would be seen.
fn assert_holds(uri: &str, block: &str) {
    let other = if block == "4k" { "8k" } else { "4k" };
    let output = holds(uri, block);
    assert!(output.status.success() && said(&output).contains("err= 0"), "{block}: {}", said(&output));
    let output = holds(uri, other);
    assert!(!output.status.success() && said(&output).contains("verify: bad"), "{other}: {}", said(&output));
}
