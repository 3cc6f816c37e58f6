//! Whoever has been let in, and then says anything over the WebSocket of a machine's screen or console. What must hold: the daemon goes
//! on with it or hangs up, takes no memory for what is merely announced, and serves everybody else.

mod line;
mod rubbish;

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde_json::Value;

use crate::common::Bench;
use line::{Door, Viewer, What, head};
use rubbish::{LONGEST, cases, noise};

/// The daemon's memory may grow by so much, whoever comes: it is less than what they announce.
const MOST_GROWTH: u64 = 64 << 20;
/// So many announce as much as may be said, and say nothing, at the same time.
const SILENT: usize = 60;
/// So many say something by chance, each way.
const NOISY: u64 = 300;
/// What is longer is nothing for a fuzzer to begin with.
const SEED: usize = 500;

/// A daemon with a machine that does not run.
struct House {
    _bench: Bench,
    door: Door,
    pid: u64,
}

impl House {
    fn open() -> House {
        let mut bench = Bench::new();
        let daemon = bench.start();
        let url = daemon["web_url"].as_str().unwrap();
        let (address, token) = url.strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
        let door = Door { address: address.to_owned(), token: token.to_owned() };
        bench.run(["create", "m", "--demo", "--disk", "1M", "--json"]).well();
        House { _bench: bench, door, pid: daemon["pid"].as_u64().unwrap() }
    }

    /// A viewer as it should be is told how things are; and alone, once the daemon has noticed that all others have left.
    fn serves_a_good_viewer(&self) {
        let mut viewer = Viewer::come(&self.door, What::Screen);
        loop {
            let (first, said) = viewer.hear().unwrap();
            let state: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!((first, &state["type"], &state["machine"]), (0x81, &"state".into(), &"m".into()));
            if state["viewers"] == 1 {
                break;
            }
        }
        assert!(viewer.is_served());
        viewer.end();
    }

    /// What the daemon has in memory, in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}

#[test]
fn who_says_what_is_nothing_is_left_and_nobody_else() {
    let house = House::open();
    house.serves_a_good_viewer();
    let before = house.memory();
    for case in cases() {
        let mut viewer = Viewer::come(&house.door, case.to);
        viewer.say(&case.said);
        assert_eq!(viewer.is_served(), case.is_fine, "{}", case.name);
    }
    house.serves_a_good_viewer();
    assert!(house.memory() < before + MOST_GROWTH, "{before} bytes have become {}", house.memory());
}

#[test]
fn what_is_announced_and_never_said_takes_no_memory() {
    let house = House::open();
    house.serves_a_good_viewer();
    let before = house.memory();
    let mut silent = Vec::new();
    for (what, longest) in LONGEST {
        let whole = head(if what == What::Screen { 0x81 } else { 0x82 }, longest as u64);
        for at in 0..SILENT {
            let mut viewer = Viewer::come(&house.door, what);
            // Some do not even announce all of it.
            viewer.say(&whole[..whole.len() - at % 2]);
            silent.push(viewer);
        }
    }
    let mut other = Viewer::come(&house.door, What::Screen);
    assert!(other.is_served());
    assert!(house.memory() < before + MOST_GROWTH, "{before} bytes have become {}", house.memory());
    silent.into_iter().chain([other]).for_each(Viewer::end);
    house.serves_a_good_viewer();
}

#[test]
fn what_is_said_by_chance_does_nothing_to_others() {
    let house = House::open();
    house.serves_a_good_viewer();
    let before = house.memory();
    for seed in 0..NOISY {
        let mut random = Rng::with_seed(seed);
        for what in [What::Screen, What::Console] {
            let mut viewer = Viewer::come(&house.door, what);
            viewer.say(&noise(&mut random));
            viewer.end();
        }
    }
    house.serves_a_good_viewer();
    assert!(house.memory() < before + MOST_GROWTH, "{before} bytes have become {}", house.memory());
}

/// An input of the fuzzer: to whom, and what is said.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/fuzz/corpus/viewer")
}

#[test]
fn the_fuzzers_corpus_does_nothing_to_others() {
    let house = House::open();
    for file in fs::read_dir(corpus()).unwrap().map(|file| file.unwrap().path()) {
        let input = fs::read(&file).unwrap();
        let Some((to, said)) = input.split_first() else { continue };
        let mut viewer = Viewer::come(&house.door, [What::Screen, What::Console][usize::from(*to) % 2]);
        viewer.say(said);
        viewer.end();
    }
    house.serves_a_good_viewer();
}

/// With `WATARI_WRITE_SEEDS` set they are written instead.
#[test]
fn the_fuzzers_corpus_has_every_short_case_as_it_is_made() {
    for case in cases().into_iter().filter(|case| case.said.len() < SEED) {
        let (path, input) = (corpus().join(&case.name), [&[case.to as u8][..], &case.said].concat());
        if std::env::var_os("WATARI_WRITE_SEEDS").is_some() {
            fs::create_dir_all(corpus()).unwrap();
            fs::write(&path, &input).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|kept| kept == input), "{} is missing or another", case.name);
    }
}
