//! A corpus on disk: replayed with mutants of each input, and written.

use std::fs;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::dice::Dice;
use super::mutants::mutant;
use super::script::Script;

/// Inputs made of each one in the corpus.
const MUTANTS: u64 = 16;

/// The inputs in a folder.
pub(crate) struct Corpus(PathBuf);

impl Corpus {
    pub(crate) fn in_folder(folder: PathBuf) -> Corpus {
        Corpus(folder)
    }

    /// By name, in order.
    fn inputs(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut inputs: Vec<_> = files.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
        inputs.sort();
        inputs
    }

    /// Fails unless every seed is there as it is made. With `WATARI_WRITE_SEEDS` set they are written instead.
    pub(crate) fn has(&self, seeds: &[(&str, Script)]) {
        for (name, script) in seeds {
            let (path, input) = (self.0.join(name), script.encode());
            if std::env::var_os("WATARI_WRITE_SEEDS").is_some() {
                fs::create_dir_all(&self.0).unwrap();
                fs::write(&path, &input).unwrap();
            }
            assert!(fs::read(&path).is_ok_and(|kept| kept == input), "{name} is missing or another");
        }
    }
}

/// Faces every input, and mutants of it. Those for which not all holds that must are kept; where, is returned.
pub(crate) fn replay(corpus: &Corpus, face: &(dyn Fn(&[u8]) + RefUnwindSafe)) -> Vec<PathBuf> {
    let mut failed = Vec::new();
    for (name, input) in corpus.inputs() {
        let mutants = (0..MUTANTS).map(|seed| (format!("{name}-{seed}"), mutant(&input, &mut Dice(seed))));
        for (name, input) in std::iter::once((name.clone(), input.clone())).chain(mutants) {
            if catch_unwind(|| face(&input)).is_err() {
                let kept = std::env::temp_dir().join(format!("hostile-{name}"));
                fs::write(&kept, &input).unwrap();
                failed.push(kept);
            }
        }
    }
    failed
}
