//! Depots in which anything may stand: one input, and what must hold whatever it is.
//!
//! As with a store (`hostile` in the store's tests) an input is a script of edits, here for a depot in one file
//! ([`archives`]) or under encryption ([`sealed`]), which is made right again above what was edited. What must hold of a
//! store must hold of it; and what is sent into it is there, or `verify` finds damage.

pub(crate) mod archives;
pub(crate) mod sealed;
#[path = "../../../store/tests/hostile/mod.rs"]
#[allow(dead_code, reason = "a part of it is needed")]
pub(crate) mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;
use watari_depot::{Access, Address, Depot, Error, Secret};
use watari_store::{Parcel, Store};
use watari_types::Generation;

use store::reading::check_error;
use store::scene::{SCENE, folder, put_files};
use store::script::{SENT_BEFORE, Script};
use store::support::MACHINE;
use store::{memory_holds, what_is_read_is_right, what_is_sent_is_whole};

/// What kind of depot is edited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Archives,
    Sealed,
}

impl Subject {
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) const ALL: [Subject; 2] = [Subject::Archives, Subject::Sealed];

    /// What it is called on the command line, and its corpus's folder.
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Archives => "archives",
            Subject::Sealed => "sealed",
        }
    }
}

/// The sound store, to send from.
static SOURCE: LazyLock<(TempDir, Store)> = LazyLock::new(|| {
    let folder = folder();
    put_files(folder.path(), &SCENE.files);
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
});

/// Edits a depot as the script `input` says, and panics unless all holds that must.
pub(crate) fn face(subject: Subject, input: &[u8]) {
    let (folder, script) = (folder(), Script::decode(input));
    let path = folder.path().join("depot.tar");
    let (bytes, secret) = match subject {
        Subject::Archives => (archives::put(&path, &script), None),
        Subject::Sealed => (sealed::put(&path, &script), Some(sealed::secret())),
    };
    let open = |access| said(open(&path, secret.as_ref(), access));
    let source = &SOURCE.1;
    memory_holds(bytes, || {
        let read = || open(Access::Read);
        let as_before = what_is_read_is_right(&read);
        assert!(!script.edits.is_empty() || as_before.len() == SCENE.readings.len());
        what_is_sent_is_whole(&read, &folder.path().join("other"), script.flags & SENT_BEFORE != 0);
        if let Some(depot) = open(Access::Write) {
            send_all(source, &depot);
        }
        what_is_read_is_right(&read);
    });
}

/// Sends all snapshots, whether that can be or not.
fn send_all(from: &Store, to: &Store) {
    for (generation, id) in from.refs(MACHINE).list().unwrap() {
        let parcel = Parcel { machine: MACHINE, generation, id, tags: &[] };
        if let Err(error) = from.send(&parcel, to, &|_| ()) {
            check_error(&error);
        }
    }
}

fn open(path: &Path, secret: Option<&Secret>, access: Access) -> Result<Store, Error> {
    let address = Address::parse(&path.to_string_lossy())?;
    watari_depot::open(&Depot { address: &address, secret, settings: &BTreeMap::new(), nearby: None }, access)
}

/// What there is, unless an error says why there is nothing.
fn said(opened: Result<Store, Error>) -> Option<Store> {
    let error = match opened {
        Ok(store) => return Some(store),
        Err(error) => error,
    };
    match &error {
        Error::Store(error) => check_error(error),
        Error::Sealed(_)
        | Error::NotSealed(_)
        | Error::NotEmpty(_)
        | Error::WrongSecret(_)
        | Error::Key { .. }
        | Error::BadIdentity(_) => {}
        Error::Io { source, .. } => {
            let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other];
            assert!(kinds.contains(&source.kind()), "files cannot cause {error:?}");
        }
        _ => panic!("files cannot cause {error:?}"),
    }
    None
}

/// A depot with all snapshots, as its folder or its file holds it.
fn fresh(path: &Path, secret: Option<&Secret>) {
    let depot = open(path, secret, Access::Write).unwrap();
    let tags = ["a-tag-of-a-name-that-does-not-fit-into-the-header-of-a-member".to_owned()];
    for (generation, id) in SOURCE.1.refs(MACHINE).list().unwrap() {
        let tags = if generation == Generation(2) { &tags[..] } else { &[] };
        SOURCE.1.send(&Parcel { machine: MACHINE, generation, id, tags }, &depot, &|_| ()).unwrap();
    }
}
