//! Manifests that nobody here would write.

use std::path::PathBuf;

use tempfile::TempDir;
use watari_types::{
    Boot, Epoch, Generation, MachineConfig, MachineId, PAGE_SIZE, PageHash, Region, RegionName, SnapshotId,
};

use super::header::{DeltaSize, DeviceStateSize, Header, VERSION, encode_prefix, signed_message};
use crate::{Error, NodeKey, SnapshotDraft, Store};

const KEY: [u8; 32] = [7; 32];
const REGION_PAGES: u64 = u32::MAX as u64;

fn header() -> Header {
    let config = MachineConfig {
        id: MachineId([1; 16]),
        memory_bytes: 1 << 20,
        cpus: 1,
        machine_type: String::new(),
        cpu_model: String::new(),
        device_layout: 1,
        boot: Boot::Disk,
        disks: vec![],
        nics: vec![],
    };
    let draft = SnapshotDraft {
        config,
        machine_name: "m".parse().unwrap(),
        parent: None,
        generation: Generation(1),
        epoch: Epoch(1),
        branch: String::new(),
        created_unix_ms: 0,
        message: String::new(),
        regions: vec![Region { name: RegionName::disk(0), bytes: REGION_PAGES * PAGE_SIZE as u64 }],
        qemu_version: String::new(),
        accelerator: String::new(),
        origin: None,
        has_memory: false,
    };
    let roots = [(RegionName::disk(0), PageHash::ZERO_PAGE)].into();
    Header {
        version: VERSION,
        draft,
        node: NodeKey::from_seed(KEY).id(),
        roots,
        deltas: vec![],
        device_state: None,
    }
}

fn delta(runs: u64, data_pages: u64, zero_pages: u64) -> DeltaSize {
    DeltaSize { region: RegionName::disk(0), runs, data_pages, zero_pages }
}

/// Writes a manifest with a true hash and a true signature around whatever it says.
fn plant(header: &Header, sections: &[u8]) -> (TempDir, Store, SnapshotId) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let json = serde_json::to_vec(header).unwrap();
    let mut bytes = [encode_prefix(&json).as_slice(), &json, sections].concat();
    let id = SnapshotId(*blake3::hash(&bytes).as_bytes());
    bytes.extend(NodeKey::from_seed(KEY).sign(&signed_message(VERSION, id)));
    let path: PathBuf = store.layout().snapshot(id);
    std::fs::write(path, bytes).unwrap();
    (folder, store, id)
}

fn assert_damaged<T>(result: Result<T, Error>, what: &str) {
    match result.err() {
        Some(Error::Damaged { .. }) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn sizes_that_cannot_be_are_refused_before_anything_is_allocated() {
    let mut headers = vec![];
    let sizes = [
        delta(u64::MAX, 0, 0),
        delta(0, u64::MAX, 0),
        delta(1, REGION_PAGES, 0),
        delta(1 << 60, 1 << 60, 0),
        delta(0, 0, u64::MAX),
        delta(0, 0, REGION_PAGES + 1),
    ];
    headers.extend(sizes.map(|size| Header { deltas: vec![size], ..header() }));
    headers.push(Header { deltas: vec![delta(0, 0, 0), delta(0, 0, 0)], ..header() });
    let states = [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 0), (257 << 20, 0)];
    headers.extend(states.map(|(bytes, stored_bytes)| Header {
        device_state: Some(DeviceStateSize { bytes, stored_bytes }),
        ..header()
    }));
    headers.push(Header { roots: [].into(), ..header() });
    let mut no_such_region = header();
    no_such_region.roots.insert(RegionName::disk(1), PageHash::ZERO_PAGE);
    headers.push(no_such_region);
    let mut too_large = header();
    too_large.draft.regions[0].bytes = u64::MAX;
    headers.push(too_large);
    for header in headers {
        let what = format!("{:?} {:?}", header.deltas, header.device_state);
        let (_folder, store, id) = plant(&header, &[]);
        assert_damaged(store.snapshot(id), &what);
        assert_damaged(store.page_tables(id), &what);
        assert_damaged(store.device_state(id), &what);
    }
}

#[test]
fn a_few_bytes_that_claim_terabytes_of_zeros_cost_nothing() {
    let header = Header { deltas: vec![delta(1, 0, REGION_PAGES)], ..header() };
    let run = [0, u32::MAX, 0].map(u32::to_le_bytes).concat();
    let (_folder, store, id) = plant(&header, &run);
    assert!(store.page_tables(id).unwrap()[&RegionName::disk(0)].is_empty());
}

#[test]
fn device_state_that_is_not_what_it_claims_is_refused() {
    let stored = zstd::bulk::compress(&[1; 1000], 3).unwrap();
    for bytes in [0, 999, 1001, 256 << 20] {
        let size = DeviceStateSize { bytes, stored_bytes: stored.len() as u64 };
        let (_folder, store, id) = plant(&Header { device_state: Some(size), ..header() }, &stored);
        assert_damaged(store.device_state(id), &format!("{bytes} bytes"));
    }
}

#[test]
fn headers_that_form_a_circle_are_refused() {
    let (_folder, store, first) = plant(&header(), &[]);
    let mut circular = header();
    circular.draft.parent = Some(first);
    circular.roots.insert(RegionName::disk(0), PageHash([9; 32]));
    let json = serde_json::to_vec(&circular).unwrap();
    let bytes = [encode_prefix(&json).as_slice(), &json, &[0; 64]].concat();
    std::fs::write(store.layout().snapshot(first), bytes).unwrap();
    assert_damaged(store.page_tables(first), "its own parent");
}
