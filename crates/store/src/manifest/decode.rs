//! Manifests read back.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use watari_types::{NodeId, RegionName, SnapshotId};
use zstd::stream::read::Decoder;

use super::header::{Header, PREFIX_BYTES, SIGNATURE_BYTES, header_bytes, signed_message};
use super::runs::{self, Run};
use crate::error::Error;
use crate::key::NodeKey;
use crate::layout::Layout;
use crate::snapshot::Snapshot;

/// 8 MiB, which every reader of Zstandard should have (RFC 8878, 3.1.1.1.2). What the store writes needs a fourth of it.
const MOST_WINDOW_LOG: u32 = 23;

/// A manifest whose bytes are those its id stands for.
pub(crate) struct Manifest {
    path: PathBuf,
    id: SnapshotId,
    header: Header,
    bytes: Vec<u8>,
    /// Where the first delta begins.
    body: usize,
}

impl Manifest {
    /// Reads only the header and checks it against its own hash, not against the id.
    pub(crate) fn read_header(layout: &Layout, path: &Path, id: SnapshotId) -> Result<Snapshot, Error> {
        let file = layout.open(path)?;
        let bytes = file.bytes();
        let of_path = |defect: crate::error::Defect| defect.of(path);
        let prefix = file.read_at(path, 0, bytes.min(PREFIX_BYTES as u64))?;
        let json_bytes =
            header_bytes(&prefix).map_err(of_path)?.min(bytes.saturating_sub(PREFIX_BYTES as u64));
        let json = file.read_at(path, PREFIX_BYTES as u64, json_bytes)?;
        let header = Header::decode(&prefix, &json, bytes).map_err(of_path)?;
        Ok(header.into_snapshot(id, bytes))
    }

    /// Reads all of it and checks it against the id; not the signature.
    pub(crate) fn read(layout: &Layout, path: &Path, id: SnapshotId) -> Result<Manifest, Error> {
        let file = layout.open(path)?;
        Manifest::decode(path, id, file.read_at(path, 0, file.bytes())?)
    }

    /// Checks bytes that are to be those of a manifest.
    pub(crate) fn decode(path: &Path, id: SnapshotId, bytes: Vec<u8>) -> Result<Manifest, Error> {
        let of_path = |defect: crate::error::Defect| defect.of(path);
        let json_bytes = header_bytes(&bytes).map_err(of_path)? as usize;
        let Some((prefix, rest)) = bytes.split_at_checked(PREFIX_BYTES) else {
            return Err(Error::damaged(path, "it ends early"));
        };
        let Some((json, _)) = rest.split_at_checked(json_bytes) else {
            return Err(Error::damaged(path, "it ends early"));
        };
        let header = Header::decode(prefix, json, bytes.len() as u64).map_err(of_path)?;
        let signed = &bytes[..bytes.len() - SIGNATURE_BYTES as usize];
        if *blake3::hash(signed).as_bytes() != id.0 {
            return Err(Error::damaged(path, "its content is not what it is named after"));
        }
        Ok(Manifest { path: path.to_owned(), id, header, body: PREFIX_BYTES + json_bytes, bytes })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.header.clone().into_snapshot(self.id, self.bytes.len() as u64)
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The node that made it, which its signature proves.
    pub(crate) fn signer(&self) -> Result<NodeId, Error> {
        let node = self.header.node;
        let message = signed_message(self.header.version, self.id);
        let signature = self.bytes.last_chunk();
        match signature.is_some_and(|signature| NodeKey::verify(node, &message, signature)) {
            true => Ok(node),
            false => Err(Error::damaged(&self.path, format!("it is not signed by node {node}"))),
        }
    }

    /// The deltas, as runs of pages.
    pub(crate) fn deltas(&self) -> Result<Vec<(&RegionName, Vec<Run<'_>>)>, Error> {
        let mut at = self.body;
        let mut deltas = Vec::with_capacity(self.header.deltas.len());
        for size in &self.header.deltas {
            // That all sections fit into the file was checked with the header.
            let bytes = size.bytes().unwrap_or(0) as usize;
            let pages =
                self.header.draft.regions.iter().find(|r| r.name == size.region).map_or(0, |r| r.pages());
            let runs = runs::decode(&self.bytes[at..][..bytes], size, pages);
            deltas.push((&size.region, runs.map_err(|defect| defect.of(&self.path))?));
            at += bytes;
        }
        Ok(deltas)
    }

    /// The device state, decompressed.
    pub(crate) fn device_state(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(size) = self.header.device_state else { return Ok(None) };
        let end = self.bytes.len() - SIGNATURE_BYTES as usize;
        let stored = &self.bytes[end - size.stored_bytes as usize..end];
        match decompress(stored, size.bytes) {
            Ok(state) if state.len() as u64 == size.bytes => Ok(Some(state)),
            Ok(_) => Err(Error::damaged(&self.path, "its device state has the wrong length")),
            Err(e) => Err(Error::damaged(&self.path, format!("its device state does not decompress: {e}"))),
        }
    }
}

/// Decompresses as many bytes, or one more if there are more. Takes memory as they come, however many are announced.
fn decompress(stored: &[u8], bytes: u64) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::with_buffer(stored)?;
    decoder.window_log_max(MOST_WINDOW_LOG)?;
    let mut content = Vec::new();
    decoder.take(bytes + 1).read_to_end(&mut content)?;
    Ok(content)
}
