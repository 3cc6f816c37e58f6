//! Manifests taken apart and put together again, as docs/FORMAT.md has them.

use watari_store::NodeKey;

use super::{Edits, Renamed, renamed_in};

/// Below the file itself.
pub(super) const LAYERS: u8 = 4;

const JSON: u8 = 0;
const BODY: u8 = 1;
const FRONT: u8 = 2;
const JSON_IN_FILE: u8 = 3;

const FRONT_BYTES: usize = 16;
const PREFIX: usize = 48;
const SIGNATURE: usize = 64;

/// A sound manifest after its edits below the file, and those of what it names.
pub(super) fn remade(
    name: &mut String,
    manifest: &[u8],
    edits: &Edits<'_>,
    key: &NodeKey,
    renamed: &mut Renamed,
) -> Vec<u8> {
    let (json, body) = taken_apart(manifest);
    let mut made = manifest.to_vec();
    let its_own = renamed_in(json, renamed);
    if its_own != json || edits.reach_below(JSON_IN_FILE) {
        made = named_and_signed(its_own, body, edits, key);
        let id = blake3::hash(&made[..made.len() - SIGNATURE]).to_string();
        let former = name["snapshots/".len()..name.len() - ".snap".len()].to_owned();
        *name = format!("snapshots/{id}.snap");
        renamed.push((former, id));
    }
    let (json, body) = taken_apart(&made);
    let mut edited = json.to_vec();
    edits.apply(JSON_IN_FILE, &mut edited);
    if edited == json {
        return made;
    }
    [with_its_hash(front(&edited), &edited), body.to_vec(), made[made.len() - SIGNATURE..].to_vec()].concat()
}

/// The JSON, and what is between that and the signature.
fn taken_apart(manifest: &[u8]) -> (&[u8], &[u8]) {
    let json = u32::from_le_bytes(*manifest[12..].first_chunk().unwrap()) as usize;
    let content = &manifest[PREFIX..manifest.len() - SIGNATURE];
    // What has been edited may say what it likes.
    content.split_at(json.min(content.len()))
}

fn named_and_signed(mut json: Vec<u8>, body: &[u8], edits: &Edits<'_>, key: &NodeKey) -> Vec<u8> {
    let mut edited = body.to_vec();
    edits.apply(BODY, &mut edited);
    json = with_device_state_longer_by(&json, edited.len() as i64 - body.len() as i64);
    edits.apply(JSON, &mut json);
    let mut front = front(&json);
    edits.apply(FRONT, &mut front);
    front.resize(FRONT_BYTES, 0);
    let version = u32::from_le_bytes(*front[8..].first_chunk().unwrap());
    let mut made = [with_its_hash(front, &json), edited].concat();
    let id = blake3::hash(&made);
    let message = [format!("watari snapshot {version}\n\0").as_bytes(), id.as_bytes()].concat();
    made.extend(key.sign(&message));
    made
}

fn front(json: &[u8]) -> Vec<u8> {
    [&b"WTRSNAP\n"[..], &2_u32.to_le_bytes(), &(json.len() as u32).to_le_bytes()].concat()
}

/// The front, its hash with the JSON, and the JSON.
fn with_its_hash(front: Vec<u8>, json: &[u8]) -> Vec<u8> {
    let hash = blake3::Hasher::new().update(&front).update(json).finalize();
    [&front, &hash.as_bytes()[..], json].concat()
}

/// What is inserted or missing somewhere is the device state's, which comes last.
fn with_device_state_longer_by(json: &[u8], more: i64) -> Vec<u8> {
    const FIELD: &str = "\"stored_bytes\":";
    let text = String::from_utf8_lossy(json).into_owned();
    let Some((before, after)) = text.split_once(FIELD) else { return text.into_bytes() };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let bytes = after[..digits].parse::<i64>().unwrap_or(0) + more;
    format!("{before}{FIELD}{bytes}{}", &after[digits..]).into_bytes()
}
