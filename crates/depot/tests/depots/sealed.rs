//! Depots under encryption.

use std::fs;
use std::path::Path;
use std::process::Command;

use watari_depot::{Access, Error, Secret};

use crate::support::MACHINE;
use crate::{History, open};

const IDENTITY: &str =
    "# created: today\nAGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n";

fn words(text: &str) -> Secret {
    Secret::passphrase(text.to_owned())
}

/// The names and contents of everything under a folder.
fn all_bytes(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_bytes(&path, into);
        } else {
            into.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn what_is_encrypted_opens_with_its_secret_only() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let mine = [words("correct horse"), Secret::identities(IDENTITY.to_owned())];
    let others = [words("wrong horse"), Secret::identities(IDENTITY.replace("VQ2Y5J33", "VQ2Y5J34"))];
    for (number, secret) in mine.iter().enumerate() {
        for place in [format!("folder{number}"), format!("file{number}.tar")] {
            let path = folder.path().join(place);
            for at in [0, 1, 3] {
                let depot = open(&path, Some(secret), Access::Write).unwrap();
                history.send(at, &depot).unwrap();
            }
            assert_eq!(history.compare(&open(&path, Some(secret), Access::Read).unwrap()), 3);
            for access in [Access::Read, Access::Write] {
                for other in mine.iter().chain(&others).filter(|other| !std::ptr::eq(*other, secret)) {
                    let refused = open(&path, Some(other), access).err().unwrap();
                    assert!(matches!(refused, Error::WrongSecret(_) | Error::BadIdentity(_)), "{refused}");
                }
                let refused = open(&path, None, access).err().unwrap();
                assert!(matches!(refused, Error::Sealed(_)), "{refused}");
            }
            assert_eq!(history.compare(&open(&path, Some(secret), Access::Read).unwrap()), 3);
        }
    }
}

#[test]
fn nothing_in_it_can_be_read_or_told_apart_by_name() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("depot");
    history.send(3, &open(&path, Some(&words("w")), Access::Write).unwrap()).unwrap();
    let mut files = Vec::new();
    all_bytes(&path, &mut files);
    assert!(files.len() > 4);
    // Each long enough that it is in no encrypted text by chance, as three letters now and then are.
    let secrets =
        [MACHINE.to_string(), history.line[3].to_string(), "in two lines".to_owned(), "WTRPACK".to_owned()];
    for (name, content) in &files {
        assert!(content.starts_with(b"age-encryption.org/v1"), "{name}");
        assert!(name == "key.age" || name.len() == 103, "{name}");
        for secret in &secrets {
            assert!(!name.contains(secret), "{name}");
            assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("depot");
    let secret = Secret::identities(IDENTITY.to_owned());
    history.send(0, &open(&path, Some(&secret), Access::Write).unwrap()).unwrap();
    let objects = path.join("objects");
    let names: Vec<_> = fs::read_dir(&objects).unwrap().map(|entry| entry.unwrap().path()).collect();
    for name in &names {
        let content = fs::read(name).unwrap();
        for at in [30, content.len() / 2, content.len() - 1] {
            let mut flipped = content.clone();
            flipped[at] ^= 4;
            fs::write(name, flipped).unwrap();
            let whole = open(&path, Some(&secret), Access::Read).is_ok_and(|store| {
                let report = store.verify(None, &|_| ());
                report.is_ok_and(|report| report.damaged.is_empty() && report.snapshots_checked > 0)
            });
            assert!(!whole, "{at} of {}", name.display());
        }
        fs::write(name, &content).unwrap();
    }
    assert_eq!(history.compare(&open(&path, Some(&secret), Access::Read).unwrap()), 1);
}

#[test]
fn what_is_there_is_not_encrypted_afterwards() {
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    for place in ["folder", "file.tar"] {
        let path = folder.path().join(place);
        history.send(0, &open(&path, None, Access::Write).unwrap()).unwrap();
        let refused = open(&path, Some(&words("w")), Access::Write).err().unwrap();
        assert!(matches!(refused, Error::NotSealed(_)), "{refused}");
        assert_eq!(history.compare(&open(&path, None, Access::Read).unwrap()), 1);
    }
}

/// Only where the program `age` is at hand: what is documented is enough to get at the key.
#[test]
fn age_itself_opens_the_key() {
    if Command::new("age").arg("--version").output().is_err() {
        return;
    }
    let (history, folder) = (History::new(), tempfile::tempdir().unwrap());
    let (path, identity) = (folder.path().join("depot"), folder.path().join("identity"));
    fs::write(&identity, IDENTITY).unwrap();
    let secret = Secret::identities(IDENTITY.to_owned());
    history.send(0, &open(&path, Some(&secret), Access::Write).unwrap()).unwrap();
    let opened =
        Command::new("age").arg("-d").arg("-i").arg(&identity).arg(path.join("key.age")).output().unwrap();
    assert!(opened.stdout.starts_with(b"AGE-SECRET-KEY-1"), "{}", String::from_utf8_lossy(&opened.stderr));
}
