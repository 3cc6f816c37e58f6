//! The fuzzers' corpora, and things like them, against the store; [`hostile`] says what must hold.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic")]

mod hostile;
#[path = "hostile/seeds.rs"]
mod seeds;

use std::path::{Path, PathBuf};

use hostile::Subject;
use hostile::replay::{Corpus, replay};

fn corpus(subject: Subject) -> Corpus {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(subject.name());
    Corpus::in_folder(folder)
}

/// One test, one input after the other: memory is counted for the whole process.
#[test]
fn the_store_withstands_the_corpora_and_mutants_of_them() {
    let mut failed = Vec::new();
    for subject in Subject::ALL {
        failed.extend(replay(&corpus(subject), &|input| hostile::face(subject, input)));
    }
    assert!(failed.is_empty(), "the store does not withstand {failed:?}");
}

/// With `WATARI_WRITE_SEEDS` set they are written instead.
#[test]
fn the_corpora_have_every_seed_as_it_is_made() {
    // The other test counts memory meanwhile.
    hostile::memory::not_counted_here();
    for subject in Subject::ALL {
        corpus(subject).has(&seeds::of(subject));
    }
}
