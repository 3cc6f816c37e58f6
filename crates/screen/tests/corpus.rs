//! The fuzzers' corpora, and mutants of them; [`hostile`] says what must hold.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod hostile;

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use hostile::Subject;

/// Inputs made of each one in a corpus.
const MUTANTS: u64 = 100;

fn folder(subject: Subject) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(subject.name())
}

/// The same with something else in it.
fn mutant(input: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.u32(1..4) {
        // Most of what matters is at the beginning: pixels are many, and all the same to everybody.
        let within = [bytes.len(), bytes.len().min(120)][random.usize(0..2)];
        let at = random.usize(0..within + 1);
        let end = (at + random.usize(0..64)).min(bytes.len());
        match random.u32(0..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(0..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = random.usize(0..bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            _ => drop(bytes.splice(at..at, [random.u8(..)])),
        }
    }
    bytes
}

fn withstands_the_corpus_and_mutants_of_it(subject: Subject) {
    for file in fs::read_dir(folder(subject)).unwrap().map(|file| file.unwrap().path()) {
        let input = fs::read(&file).unwrap();
        hostile::face(subject, &input);
        for seed in 0..MUTANTS {
            let mutant = mutant(&input, &mut Rng::with_seed(seed));
            let faced = std::panic::catch_unwind(|| hostile::face(subject, &mutant));
            if faced.is_err() {
                let kept = std::env::temp_dir().join(format!("hostile-{}-{seed}", subject.name()));
                fs::write(&kept, &mutant).unwrap();
                panic!("{}, mutant {seed}: kept as {}", file.display(), kept.display());
            }
        }
    }
}

#[test]
fn a_display_over_vnc_withstands_the_corpus_and_mutants_of_it() {
    withstands_the_corpus_and_mutants_of_it(Subject::Rfb);
}

#[test]
fn a_display_over_dbus_withstands_the_corpus_and_mutants_of_it() {
    withstands_the_corpus_and_mutants_of_it(Subject::Dbus);
}

/// With `WATARI_WRITE_SEEDS` set they are written instead.
#[test]
fn the_corpora_have_every_seed_as_it_is_made() {
    for subject in Subject::ALL {
        for (name, input) in subject.seeds() {
            let path = folder(subject).join(name);
            if std::env::var_os("WATARI_WRITE_SEEDS").is_some() {
                fs::create_dir_all(folder(subject)).unwrap();
                fs::write(&path, &input).unwrap();
            }
            assert!(fs::read(&path).is_ok_and(|kept| kept == input), "{name} is missing or another");
        }
    }
}
