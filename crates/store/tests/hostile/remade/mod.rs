//! Files edited below their hashes, and made right again above: so an edit gets as far as its layer deserves.
//!
//! ```text
//!                 layer 0          1             2            3           4        5
//!   pack          content of       frames as     index        the file    its
//!                 the frames       stored                                 name
//!   manifest      JSON             what follows  first 16     JSON, only  the      its
//!                                  it            bytes        its hash    file     name
//!                                                             right
//!   ref           text             the file      its name
//!   index         all but check    the file      its name
//!   others        the file         its name
//! ```
//! A pack is named by what it holds afterwards; its pages keep their names, true or not. A manifest is named and signed
//! anew, its lengths agree, and all that named it, manifests and refs, names what it is called now.

mod manifest;
mod pack;

use std::collections::BTreeMap;

use watari_store::NodeKey;
use xxhash_rust::xxh3::xxh3_64;

use super::script::{Edits, Op, Script, file_name};

/// The files of a store, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What the ids of manifests have become.
type Renamed = Vec<(String, String)>;

/// The files after a script for those that `may_change`. The manifests in `line` come before those that name them.
pub(crate) fn files(
    whole: &Files,
    line: &[String],
    key: &NodeKey,
    script: &Script,
    may_change: impl Fn(&str) -> bool,
) -> Files {
    let editable: Vec<&String> = whole.keys().filter(|name| may_change(name)).collect();
    let edits = |name: &str| {
        let number = editable.iter().position(|editable| *editable == name);
        number.map(|number| script.of(number, editable.len())).unwrap_or_default()
    };
    let mut renamed = Renamed::new();
    let mut made = Files::new();
    let others = whole.keys().filter(|name| !line.contains(name));
    for name in line.iter().chain(others) {
        let (content, edits) = (&whole[name], edits(name));
        match edits.fate() {
            Some(edit) if edit.op == Op::Become => {
                let other = editable[usize::from(edit.value) % editable.len()];
                made.insert(name.clone(), whole[other].clone());
            }
            Some(_) => {}
            None => made.extend([file(name, content, &edits, key, &mut renamed)]),
        }
    }
    made
}

/// A file's name and content after its edits.
fn file(
    name: &str,
    content: &[u8],
    edits: &Edits<'_>,
    key: &NodeKey,
    renamed: &mut Renamed,
) -> (String, Vec<u8>) {
    let mut name = name.to_owned();
    let (mut made, raw) = match name.split('/').next() {
        Some("packs") => {
            let made = pack::remade(&mut name, content, edits);
            (made, pack::LAYERS)
        }
        Some("snapshots") => {
            let made = manifest::remade(&mut name, content, edits, key, renamed);
            (made, manifest::LAYERS)
        }
        Some("refs") => (with_check(content, edits, renamed), 1),
        Some("index") => (with_checksum(content, edits), 1),
        _ => (content.to_vec(), 0),
    };
    edits.apply(raw, &mut made);
    (with_another_end(&name, edits, raw + 1), made)
}

/// A ref, its check right.
fn with_check(content: &[u8], edits: &Edits<'_>, renamed: &Renamed) -> Vec<u8> {
    const CHECK: usize = " 01234567\n".len();
    let text = &content[..content.len() - CHECK];
    let mut text = renamed_in(text, renamed);
    edits.apply(0, &mut text);
    let check = hex::encode(&blake3::hash(&text).as_bytes()[..4]);
    [&text[..], b" ", check.as_bytes(), b"\n"].concat()
}

/// The index of all packs, its check right.
fn with_checksum(content: &[u8], edits: &Edits<'_>) -> Vec<u8> {
    let mut checked = content[..content.len() - 8].to_vec();
    edits.apply(0, &mut checked);
    let check = xxh3_64(&checked).to_le_bytes();
    [&checked[..], &check].concat()
}

/// A text in which manifests are called what they are called now.
fn renamed_in(text: &[u8], renamed: &Renamed) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).into_owned();
    renamed.iter().fold(text, |text, (from, to)| text.replace(from, to)).into_bytes()
}

/// A name whose last part is edited as text, and stays one that a file can have.
fn with_another_end(name: &str, edits: &Edits<'_>, layer: u8) -> String {
    let (folder, end) = name.rsplit_once('/').map_or(("", name), |(folder, end)| (folder, end));
    let mut end = end.as_bytes().to_vec();
    edits.apply(layer, &mut end);
    let end = file_name(&end);
    if folder.is_empty() { end } else { format!("{folder}/{end}") }
}
