//! A snapshot into a manifest.

use std::collections::BTreeMap;

use watari_types::{Delta, PageHash, RegionDelta, RegionName, SnapshotId};

use super::header::{
    DeltaSize, DeviceStateSize, Header, MAX_HEADER_BYTES, VERSION, encode_prefix, signed_message,
};
use super::runs;
use crate::error::Error;
use crate::key::NodeKey;
use crate::snapshot::SnapshotDraft;

/// Device state, ready to be stored.
pub(crate) struct PackedState {
    /// Its bytes before compression.
    pub(crate) bytes: u64,
    /// One Zstandard frame.
    pub(crate) stored: Vec<u8>,
}

/// The manifest's bytes and the snapshot's id.
pub(crate) fn encode(
    draft: &SnapshotDraft,
    delta: &Delta,
    roots: BTreeMap<RegionName, PageHash>,
    device_state: Option<PackedState>,
    key: &NodeKey,
) -> Result<(SnapshotId, Vec<u8>), Error> {
    let mut sections = Vec::new();
    let mut deltas = Vec::new();
    for (region, changes) in delta.iter().filter(|(_, changes)| !changes.is_empty()) {
        deltas.push(encode_delta(draft, region, changes, &mut sections)?);
    }
    let device_size = device_state.map(|state| {
        sections.extend(&state.stored);
        DeviceStateSize { bytes: state.bytes, stored_bytes: state.stored.len() as u64 }
    });
    let header = Header {
        version: VERSION,
        draft: draft.clone(),
        node: key.id(),
        roots,
        deltas,
        device_state: device_size,
    };
    header.check().map_err(Error::BadDraft)?;
    let json = serde_json::to_vec(&header).map_err(|e| Error::BadDraft(e.to_string()))?;
    if json.len() > MAX_HEADER_BYTES as usize {
        return Err(Error::BadDraft("its description is longer than 1 MiB".to_owned()));
    }
    let mut bytes = encode_prefix(&json);
    bytes.extend(json);
    bytes.append(&mut sections);
    let id = SnapshotId(*blake3::hash(&bytes).as_bytes());
    bytes.extend(key.sign(&signed_message(VERSION, id)));
    Ok((id, bytes))
}

fn encode_delta(
    draft: &SnapshotDraft,
    region: &RegionName,
    changes: &RegionDelta,
    sections: &mut Vec<u8>,
) -> Result<DeltaSize, Error> {
    let pages = draft.regions.iter().find(|r| r.name == *region).map_or(0, |r| r.pages());
    if let Some((page, _)) = changes.iter().find(|(page, _)| u64::from(*page) >= pages) {
        return Err(Error::BadDraft(format!("page {page} of {region} changed, which has only {pages}")));
    }
    let (runs, mut bytes) = runs::encode(changes);
    sections.append(&mut bytes);
    let data_pages = changes.iter().filter(|(_, hash)| !hash.is_zero_page()).count() as u64;
    let zero_pages = changes.len() as u64 - data_pages;
    Ok(DeltaSize { region: region.clone(), runs, data_pages, zero_pages })
}
