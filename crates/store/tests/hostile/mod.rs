//! A store in which anything may stand: one input, and what must hold whatever it is.
//!
//! The fuzzers (`fuzz/`) and the replay of their corpora (`corpus.rs`) both go through [`face`]. An input is a script
//! of edits ([`script`]) for the files of a sound store ([`scene`]), which are made right again above what was edited
//! ([`remade`]). The store is opened, verified and read, sent into another one, and its garbage is collected.
//!
//! Then nothing has panicked; every error is one that says what is wrong ([`reading`]); no more memory was taken than
//! the files are worth ([`ALLOWED`]). What a ref names and was there before reads as it did, or `verify` finds damage;
//! so it does when a page is not what it is named after. What arrived elsewhere is whole: `verify` finds nothing there,
//! and it reads as it did. And collecting garbage takes nothing away that could be read.

#[path = "../../../disk/tests/hostile/dice.rs"]
pub(crate) mod dice;
#[allow(dead_code, reason = "for tests only")]
pub(crate) mod edits;
#[path = "../../../disk/tests/hostile/memory.rs"]
#[allow(dead_code, reason = "a part of it is for tests only")]
pub(crate) mod memory;
pub(crate) mod mutants;
pub(crate) mod reading;
pub(crate) mod remade;
#[allow(dead_code, reason = "for tests only")]
pub(crate) mod replay;
pub(crate) mod scene;
pub(crate) mod script;
#[path = "../store/support.rs"]
#[allow(dead_code, reason = "a part of it is needed")]
pub(crate) mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use watari_store::{Error, Parcel, Store};
use watari_types::{Generation, MachineId, SnapshotId};

use reading::{Outcome, check_error, read};
use scene::{FIRST_TWO, SCENE, collect, folder, put_files};
use script::{SENT_BEFORE, Script, WITH_INDEX};
pub(crate) use support::damage;

/// What may be taken whatever the files are: buffers of a fixed size, some for each of a few threads, and the frames
/// that are kept decoded, of which there are 64 at most. And so many times the files' bytes.
const ALLOWED: (usize, usize) = (20 << 20, 64);

/// Which files of the store are edited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Packs,
    Manifests,
    Refs,
    Index,
}

impl Subject {
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) const ALL: [Subject; 4] = [Subject::Packs, Subject::Manifests, Subject::Refs, Subject::Index];

    /// What it is called on the command line, and its corpus's folder.
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Packs => "packs",
            Subject::Manifests => "manifests",
            Subject::Refs => "refs",
            Subject::Index => "index",
        }
    }

    fn may_change(self, file: &str) -> bool {
        match self {
            Subject::Packs => file.starts_with("packs/"),
            Subject::Manifests => file.starts_with("snapshots/"),
            Subject::Refs => file.starts_with("refs/") || file == "format",
            Subject::Index => file == "index",
        }
    }
}

/// Edits the store as the script `input` says, and panics unless all holds that must.
pub(crate) fn face(subject: Subject, input: &[u8]) {
    let (scene, script) = (&*SCENE, Script::decode(input));
    let may_change = |file: &str| subject.may_change(file);
    let mut files = remade::files(&scene.files, &scene.line, &scene.key, &script, may_change);
    if script.flags & WITH_INDEX == 0 && !may_change("index") {
        files.remove("index");
    }
    let folder = folder();
    let root = folder.path().join("store");
    put_files(&root, &files);
    let bytes = files.values().map(Vec::len).sum();
    memory_holds(bytes, || {
        let open = || said(Store::open(&root));
        let read_before = what_is_read_is_right(&open);
        // Or nothing would be known of those that are edited.
        assert!(!script.edits.is_empty() || read_before.len() == scene.readings.len());
        what_is_sent_is_whole(&open, &folder.path().join("other"), script.flags & SENT_BEFORE != 0);
        collecting_takes_nothing_away(&open, &read_before);
    });
}

/// Does that work; fails if it takes more memory than so many bytes of files are worth.
pub(crate) fn memory_holds(bytes: usize, work: impl FnOnce()) {
    memory::begin();
    work();
    let (taken, allowed) = (memory::most_since_begin(), ALLOWED.0 + ALLOWED.1 * bytes);
    assert!(taken <= allowed, "{taken} bytes were taken where {allowed} do, for files of {bytes}");
}

/// How a store is opened, if it can be.
type Open<'a> = &'a dyn Fn() -> Option<Store>;

/// What there is, unless an error says why there is nothing.
fn said<T>(result: Result<T, Error>) -> Option<T> {
    result.inspect_err(check_error).ok()
}

/// What refs name: whose, and as which generation, where they say so.
fn named(store: &Store) -> BTreeSet<(MachineId, Option<Generation>, SnapshotId)> {
    let mut named = BTreeSet::new();
    for machine in said(store.machines()).unwrap_or_default() {
        let refs = store.refs(machine);
        said(refs.list());
        said(refs.tags());
        let Some(survey) = said(refs.survey()) else { continue };
        named.extend(survey.snapshots.into_iter().map(|(generation, id)| (machine, Some(generation), id)));
        let others = survey.tags.into_values().chain(survey.head.map(|head| head.id));
        named.extend(others.map(|id| (machine, None, id)));
    }
    named
}

/// Reads all that refs name; those snapshots that read as they did.
pub(crate) fn what_is_read_is_right(open: Open<'_>) -> BTreeSet<SnapshotId> {
    let Some(store) = open() else { return BTreeSet::new() };
    let report = said(store.verify(None, &|_| ()));
    let is_clean = report.is_some_and(|report| report.damaged.is_empty());
    let mut as_before = BTreeSet::new();
    for id in named(&store).into_iter().map(|(_, _, id)| id).collect::<BTreeSet<_>>() {
        let outcome = read(&store, id);
        assert!(!is_clean || !matches!(outcome, Outcome::Wrong), "verify does not find the page of {id}");
        if reads_as_before(id, &outcome) {
            as_before.insert(id);
        } else if SCENE.readings.contains_key(&id) {
            assert!(!is_clean, "verify does not find why {id} is another: {outcome:?}");
        }
    }
    as_before
}

fn reads_as_before(id: SnapshotId, outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reads(reading) if SCENE.readings.get(&id) == Some(&**reading))
}

/// Sends all that refs name into another store.
pub(crate) fn what_is_sent_is_whole(open: Open<'_>, other: &Path, was_sent_before: bool) {
    if was_sent_before {
        put_files(other, &FIRST_TWO);
    }
    let Some(store) = open() else { return };
    let to = Store::open(other).unwrap();
    let mut sent = BTreeMap::new();
    for (machine, generation, id) in named(&store) {
        let Some(generation) = generation else { continue };
        let parcel = Parcel { machine, generation, id, tags: &["sent".to_owned()] };
        sent.insert(id, said(store.send(&parcel, &to, &|_| ())).is_some());
    }
    // As another process finds it.
    let there = Store::open(other).unwrap();
    assert_eq!(damage(&there), [""; 0], "what was sent is not whole");
    for (id, has_arrived) in sent {
        let outcome = read(&there, id);
        assert!(!matches!(outcome, Outcome::Wrong), "a wrong page of {id} was sent");
        let must = has_arrived && SCENE.readings.contains_key(&id);
        assert!(!must || reads_as_before(id, &outcome), "{id} was sent and is another: {outcome:?}");
    }
}

/// Collects garbage.
fn collecting_takes_nothing_away(open: Open<'_>, read_before: &BTreeSet<SnapshotId>) {
    let Some(store) = open() else { return };
    said(collect(&store));
    let store = open().unwrap();
    for id in read_before {
        let outcome = read(&store, *id);
        assert!(reads_as_before(*id, &outcome), "{id} was lost with the garbage: {outcome:?}");
    }
}
