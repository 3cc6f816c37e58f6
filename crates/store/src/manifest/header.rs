//! The head of a manifest; see docs/FORMAT.md, *Snapshots*.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watari_types::{NodeId, PageHash, RegionName, SnapshotId};

use super::runs::RUN_BYTES;
use crate::bytes::Parser;
use crate::error::Defect;
use crate::snapshot::{PageCounts, Snapshot, SnapshotDraft};

/// Bytes before the JSON header.
pub(crate) const PREFIX_BYTES: usize = 48;
/// Longest JSON header.
pub(crate) const MAX_HEADER_BYTES: u32 = 1 << 20;
/// Bytes of the signature at the end.
pub(crate) const SIGNATURE_BYTES: u64 = 64;
/// Most bytes of device state.
pub(crate) const MAX_DEVICE_STATE_BYTES: u64 = 256 << 20;

const MAGIC: [u8; 8] = *b"WTRSNAP\n";
/// The version that is written. The one before it is read as well: it has no roots.
pub(crate) const VERSION: u32 = 2;
/// Most pages a region can have: their numbers, and the number after the last, have 32 bits.
const MAX_REGION_PAGES: u64 = u32::MAX as u64;

/// The JSON header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The format's version, which is not in the JSON.
    #[serde(skip)]
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) draft: SnapshotDraft,
    pub(crate) node: NodeId,
    /// Of each region the root of its tree.
    #[serde(default)]
    pub(crate) roots: BTreeMap<RegionName, PageHash>,
    pub(crate) deltas: Vec<DeltaSize>,
    pub(crate) device_state: Option<DeviceStateSize>,
}

/// Which region a delta is of, and its counts, from which its length follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeltaSize {
    pub(crate) region: RegionName,
    pub(crate) runs: u64,
    pub(crate) data_pages: u64,
    pub(crate) zero_pages: u64,
}

/// The device state's lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceStateSize {
    pub(crate) bytes: u64,
    pub(crate) stored_bytes: u64,
}

impl DeltaSize {
    /// The delta's length in bytes, if that is a number at all.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.runs.checked_mul(RUN_BYTES)?.checked_add(self.data_pages.checked_mul(32)?)
    }
}

/// The bytes before the JSON header `json`.
pub(crate) fn encode_prefix(json: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((json.len() as u32).to_le_bytes());
    let hash = hash_of(&bytes, json);
    bytes.extend(hash);
    bytes
}

fn hash_of(front: &[u8], json: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(front).update(json).finalize().as_bytes()
}

/// The length of the JSON header, from the first bytes of a file.
pub(crate) fn header_bytes(prefix: &[u8]) -> Result<u64, Defect> {
    let mut parser = Parser(prefix);
    let (magic, _version, bytes) = (parser.array::<8>()?, parser.u32()?, parser.u32()?);
    match magic == MAGIC && bytes <= MAX_HEADER_BYTES {
        true => Ok(u64::from(bytes)),
        false => Err(Defect::new("it does not begin as a manifest does")),
    }
}

/// What a node signs to vouch for a snapshot: it begins so that it can be taken for nothing else.
pub(crate) fn signed_message(version: u32, id: SnapshotId) -> Vec<u8> {
    [format!("watari snapshot {version}\n\0").as_bytes(), &id.0].concat()
}

impl Header {
    /// Reads the header of a manifest of `file_bytes` bytes, given its first bytes and its JSON.
    pub(crate) fn decode(prefix: &[u8], json: &[u8], file_bytes: u64) -> Result<Header, Defect> {
        let (front, hash) = prefix.split_at_checked(16).ok_or_else(|| Defect::new("it ends early"))?;
        if hash != hash_of(front, json) {
            return Err(Defect::new("its header is not the one that was written"));
        }
        let version = Parser(&front[8..]).u32()?;
        if version > VERSION {
            return Err(Defect::NewerFormat(version));
        }
        let header: Header = serde_json::from_slice(json)
            .map_err(|e| Defect::new(format!("its header makes no sense: {e}")))?;
        let header = Header { version, ..header };
        header.check().map_err(|what| Defect::new(format!("its header contradicts itself: {what}")))?;
        let rest = header.bytes_after().and_then(|rest| rest.checked_add((prefix.len() + json.len()) as u64));
        match rest == Some(file_bytes) {
            true => Ok(header),
            false => Err(Defect::new("its length is not what its header says")),
        }
    }

    fn bytes_after(&self) -> Option<u64> {
        let deltas = self.deltas.iter().try_fold(0_u64, |sum, delta| sum.checked_add(delta.bytes()?));
        let devices = self.device_state.map_or(0, |size| size.stored_bytes);
        deltas?.checked_add(devices)?.checked_add(SIGNATURE_BYTES)
    }

    /// Whether its parts agree with each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut pages = BTreeMap::new();
        for region in &self.draft.regions {
            if region.pages() > MAX_REGION_PAGES {
                return Err(format!("region {} has 16 TiB or more", region.name));
            }
            if pages.insert(&region.name, region.pages()).is_some() {
                return Err(format!("region {} is there twice", region.name));
            }
        }
        let has_roots = self.roots.keys().eq(pages.keys().copied());
        if !has_roots && (self.version > 1 || !self.roots.is_empty()) {
            return Err("it does not say of each region what it holds, and of no other".to_owned());
        }
        for delta in &self.deltas {
            // Removed, so that a second delta of the same region finds none.
            let Some(pages) = pages.remove(&delta.region) else {
                return Err(format!("there is no region for a delta of {}", delta.region));
            };
            if delta.data_pages.checked_add(delta.zero_pages).is_none_or(|changed| changed > pages) {
                return Err(format!("more pages of {} changed than it has", delta.region));
            }
        }
        match self.device_state {
            Some(size) if size.bytes > MAX_DEVICE_STATE_BYTES => {
                Err("the device state is too long".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn into_snapshot(self, id: SnapshotId, manifest_bytes: u64) -> Snapshot {
        let counts =
            |delta: DeltaSize| (delta.region, PageCounts { data: delta.data_pages, zero: delta.zero_pages });
        Snapshot {
            id,
            draft: self.draft,
            node: self.node,
            roots: self.roots,
            changes: self.deltas.into_iter().map(counts).collect(),
            device_state_bytes: self.device_state.map_or(0, |size| size.bytes),
            manifest_bytes,
        }
    }
}
