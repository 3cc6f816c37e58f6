//! Depots under encryption, made from docs/FORMAT.md alone; edited below the encryption and above.
//!
//! Of each of the store's files layer 0 is the content and layer 1 the short name, before they are encrypted; layer 2
//! is what is stored, and layer 3 under which name. The last of the files is the depot's key: layer 0 is its text, and
//! layer 2 `key.age`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::iter;
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use age::{Encryptor, Recipient, x25519};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use watari_depot::Secret;

use super::store::remade::Files;
use super::store::scene::{SCENE, put_files};
use super::store::script::{Edits, Op, Script, file_name};

/// What opens the depot, and the depot's own key.
const OPENER: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const KEY: &str = "AGE-SECRET-KEY-1QYPQXPQ9QCRSSZG2PVXQ6RS0ZQG3YYC5Z5TPWXQERGD3C8G7RUSQGPQYEE";

const OBJECTS: &str = "objects/";

const CONTENT: u8 = 0;
const NAME: u8 = 1;
const STORED: u8 = 2;
const STORED_NAME: u8 = 3;

/// The sound one: encrypting takes longer than most inputs do. By the files' own names; the key's is none.
static SEALED: LazyLock<BTreeMap<&str, (String, Vec<u8>)>> = LazyLock::new(|| {
    let files = SCENE.files.iter().filter(|(name, _)| *name != "index");
    let sealed = |(name, content): (&'static String, &Vec<u8>)| {
        (name.as_str(), (sealed_name(&short(name)), encrypt(KEY, content)))
    };
    let key = ("", ("key.age".to_owned(), encrypt(OPENER, KEY.as_bytes())));
    files.map(sealed).chain([key]).collect()
});

pub(crate) fn secret() -> Secret {
    Secret::identities(OPENER.to_owned())
}

/// Puts the depot there, after a script; its length.
pub(crate) fn put(path: &Path, script: &Script) -> usize {
    let count = SEALED.len();
    let mut files = Files::new();
    for (number, (name, sound)) in SEALED.iter().enumerate() {
        let edits = script.of(number, count);
        match edits.fate() {
            Some(edit) if edit.op == Op::Become => {
                let other = SEALED.values().nth(usize::from(edit.value) % count);
                files.insert(sound.0.clone(), other.map(|(_, content)| content.clone()).unwrap_or_default());
            }
            Some(_) => {}
            None => files.extend([file(name, sound.clone(), &edits)]),
        }
    }
    fs::create_dir_all(path).unwrap();
    put_files(path, &files);
    files.values().map(Vec::len).sum()
}

/// A file's name and content after its edits.
fn file(name: &str, sound: (String, Vec<u8>), edits: &Edits<'_>) -> (String, Vec<u8>) {
    let (mut stored_name, mut stored) = sound;
    let is_key = name.is_empty();
    if edits.reach_below(CONTENT + 1) {
        let mut content = if is_key { KEY.as_bytes().to_vec() } else { SCENE.files[name].clone() };
        edits.apply(CONTENT, &mut content);
        stored = encrypt(if is_key { OPENER } else { KEY }, &content);
    }
    if !is_key && edits.reach_below(NAME + 1) {
        let mut short = short(name);
        edits.apply(NAME, &mut short);
        stored_name = sealed_name(&short);
    }
    edits.apply(STORED, &mut stored);
    if let Some(end) = stored_name.strip_prefix(OBJECTS) {
        let mut end = end.as_bytes().to_vec();
        edits.apply(STORED_NAME, &mut end);
        stored_name = format!("{OBJECTS}{}", file_name(&end));
    }
    (stored_name, stored)
}

fn encrypt(identity: &str, content: &[u8]) -> Vec<u8> {
    let recipient = x25519::Identity::from_str(identity).unwrap().to_public();
    let encryptor = Encryptor::with_recipients(iter::once(&recipient as &dyn Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// A file's name in few bytes.
fn short(name: &str) -> Vec<u8> {
    let id = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
    match name.split_once('/') {
        Some(("packs", file)) => [vec![2], id(&file[..64])].concat(),
        Some(("snapshots", file)) => [vec![3], id(&file[..64])].concat(),
        Some(("refs", rest)) => [vec![4], id(&rest[..32]), rest.as_bytes()[33..].to_vec()].concat(),
        _ => [&[1], name.as_bytes()].concat(),
    }
}

fn sealed_name(short: &[u8]) -> String {
    let mut key = [0; 64];
    let context = "watari 2026-11-22 names of files in an encrypted depot";
    blake3::Hasher::new_derive_key(context).update(KEY.as_bytes()).finalize_xof().fill(&mut key);
    let mut padded = short.to_vec();
    padded.resize(padded.len().next_multiple_of(48), 0);
    let sealed = Aes256Siv::new(&key.into()).encrypt(iter::empty::<&[u8]>(), &padded).unwrap();
    format!("{OBJECTS}{}", BASE32_NOPAD.encode(&sealed).to_ascii_lowercase())
}
