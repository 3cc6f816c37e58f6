//! The demo guest stamps its memory and disk and checks every stamp, for ever. Nothing that is captured while
//! it does so may ever come back wrong: not in memory, not on the disk, not between the two.

use std::os::unix::fs::MetadataExt;

use crate::lab::{Lab, numbers};

const CHECKPOINTS: usize = 200;
const RESTORES: usize = 20;

/// A repeatable choice that is not regular.
fn pick(n: usize, below: usize) -> usize {
    let mixed = (n as u64 + 1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 33) as usize % below
}

#[test]
fn what_200_checkpoints_captured_is_right_in_20_random_restores() {
    let lab = Lab::new();
    lab.start_demo(
        "s",
        "208M",
        "16M",
        // Most of the memory, all of the disk.
        "watari.run=stamp watari.args=mem=120M,mem-rate=10,disk-rate=2",
        "STAMP pass=1",
    );
    let mut generations = Vec::new();
    for n in 0..CHECKPOINTS {
        let done = lab.ok(&["checkpoint", "s", "-m", &format!("stamps {n}")]);
        generations.push(done["generation"].as_u64().unwrap());
    }
    assert_eq!(generations, (1..=CHECKPOINTS as u64).collect::<Vec<_>>());
    no_errors(&lab.serial("s"));
    let disk = || std::fs::metadata(lab.folder("s").join("disk0.raw")).unwrap().ino();
    let file = disk();
    for n in 0..RESTORES {
        let generation = generations[pick(n, generations.len())];
        let console = lab.listen("s");
        lab.ok(&["restore", &format!("s@{generation}")]);
        // The first pass may have begun before the capture; the second checks every page after it.
        let said = console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
        no_errors(&said);
    }
    assert_eq!(disk(), file, "each time the disk was taken back, and not fetched anew");
    let report = lab.ok(&["verify", "s"]);
    assert_eq!(report["damaged"].as_array().unwrap().len(), 0, "{report}");
    assert!(report["pages_checked"].as_u64().unwrap() > 10_000, "{report}");
}

fn no_errors(console: &str) {
    let wrong: Vec<&str> = console.lines().filter(|line| line.contains("STAMP ERROR")).collect();
    assert!(wrong.is_empty(), "{} wrong pages, first: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}
