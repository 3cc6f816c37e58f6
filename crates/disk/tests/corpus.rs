//! The fuzzer's corpus, and things like it, against the server; [`hostile`] says what must hold.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod hostile;
#[path = "hostile/seeds.rs"]
mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use hostile::dice::Dice;
use hostile::mutants::mutant;

/// Inputs made of each one in the corpus.
const MUTANTS: u64 = 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/nbd")
}

/// The corpus by name, in order.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut corpus: Vec<_> = files.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
    corpus.sort();
    corpus
}

/// Faces an input. If not all holds then that must, it is kept; where, is returned.
fn face(what: &str, input: &[u8]) -> Option<PathBuf> {
    catch_unwind(|| hostile::face(input)).err().map(|_| {
        let kept = std::env::temp_dir().join(format!("nbd-{what}"));
        fs::write(&kept, input).unwrap();
        kept
    })
}

/// One test, one input after the other: memory and threads are counted for the whole process.
#[test]
fn the_server_withstands_the_corpus_and_mutants_of_it() {
    let mut failed = Vec::new();
    for (name, input) in corpus() {
        failed.extend(face(&name, &input));
        for seed in 0..MUTANTS {
            failed.extend(face(&format!("{name}-{seed}"), &mutant(&input, &mut Dice(seed))));
        }
    }
    assert!(failed.is_empty(), "the server does not withstand {failed:?}");
}

/// With `WATARI_WRITE_SEEDS` set they are written instead.
#[test]
fn the_corpus_has_every_seed_as_it_is_made() {
    // The other test counts memory meanwhile.
    hostile::memory::not_counted_here();
    for (name, input) in seeds::all() {
        let path = folder().join(&name);
        if std::env::var_os("WATARI_WRITE_SEEDS").is_some() {
            fs::write(&path, &input).unwrap();
        }
        assert!(fs::read(&path).is_ok_and(|kept| kept == input), "{name} is missing or another");
    }
}
