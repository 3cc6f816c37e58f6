//! What every test of the store needs: pages of known content, a machine, a store in a folder of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tempfile::TempDir;
use watari_store::{Collecting, Error, Lease, NodeKey, PackWriter, Regions, SnapshotDraft, Store};
use watari_types::{
    Boot, Delta, DiskConfig, Epoch, Generation, MachineConfig, MachineId, PAGE_SIZE, Page, PageHash,
    PageTable, Region, RegionName, SnapshotId,
};

pub(crate) const MACHINE: MachineId = MachineId([0xA1; 16]);
pub(crate) const DISK_PAGES: u32 = 4096;

/// What the machine is made of.
pub(crate) fn config() -> MachineConfig {
    MachineConfig {
        id: MACHINE,
        memory_bytes: 1 << 20,
        cpus: 1,
        machine_type: "pc-q35-8.2".to_owned(),
        cpu_model: "x86-64-v2".to_owned(),
        device_layout: 1,
        boot: Boot::Disk,
        disks: vec![DiskConfig { bytes: u64::from(DISK_PAGES) * PAGE_SIZE as u64 }],
        nics: vec![],
    }
}

/// A store in a folder that is removed with it.
pub(crate) fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

pub(crate) fn key() -> NodeKey {
    NodeKey::from_seed([7; 32])
}

/// The page that stands for `number`; 0 is the zero page. Half of it compresses, half does not. Four neighbours
/// differ in a byte only.
pub(crate) fn page(number: u32) -> Page {
    let mut page = [0; PAGE_SIZE];
    if number > 0 {
        page[..4].copy_from_slice(&number.to_le_bytes());
        let mut noise = blake3::Hasher::new().update(&(number / 4).to_le_bytes()).finalize_xof();
        noise.fill(&mut page[2048..]);
    }
    page
}

pub(crate) fn hash(number: u32) -> PageHash {
    PageHash::of(&page(number))
}

/// Puts pages into a new pack.
pub(crate) fn store_pages(store: &Store, numbers: impl IntoIterator<Item = u32>) {
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    for number in numbers {
        pack.put(hash(number), &page(number)).unwrap();
    }
    pack.finish().unwrap();
}

pub(crate) fn draft(generation: u64, parent: Option<SnapshotId>) -> SnapshotDraft {
    SnapshotDraft {
        config: config(),
        machine_name: "web".parse().unwrap(),
        parent,
        generation: Generation(generation),
        epoch: Epoch(1),
        branch: "main".to_owned(),
        created_unix_ms: 1_700_000_000_000,
        message: "a \"message\"\nin two lines".to_owned(),
        regions: vec![
            Region { name: ram(), bytes: 1 << 20 },
            Region { name: RegionName::disk(0), bytes: u64::from(DISK_PAGES) * PAGE_SIZE as u64 },
        ],
        qemu_version: "10.0.2".to_owned(),
        accelerator: "tcg".to_owned(),
        origin: None,
        has_memory: true,
    }
}

pub(crate) fn ram() -> RegionName {
    RegionName::ram("m0").unwrap()
}

/// A delta of the disk: page index and the number of its new content.
pub(crate) fn disk_delta(changes: &[(u32, u32)]) -> Delta {
    let changes = changes.iter().map(|(index, number)| (*index, hash(*number))).collect();
    BTreeMap::from([(RegionName::disk(0), changes)])
}

/// What the machine holds after a delta of its disk, its trees put into a pack if they are due.
pub(crate) fn after(store: &Store, pack: &mut PackWriter, draft: &SnapshotDraft, delta: &Delta) -> Regions {
    let before = draft.parent.map(|parent| store.regions(parent).unwrap()).unwrap_or_default();
    let mut after = before.after(delta, &draft.regions);
    pack.put_trees(&mut after, &draft.regions).unwrap();
    after
}

/// Publishes a snapshot of the disk whose pages are there already.
pub(crate) fn publish_delta(
    store: &Store,
    draft: &SnapshotDraft,
    changes: &[(u32, u32)],
    device_state: Option<&[u8]>,
    key: &NodeKey,
) -> Result<(SnapshotId, u64), Error> {
    let lease = store.lease()?;
    let mut pack = store.new_pack(&lease)?;
    let delta = disk_delta(changes);
    let mut regions = after(store, &mut pack, draft, &delta);
    pack.finish()?;
    store.publish(draft, &delta, &mut regions, device_state, key, &lease)
}

/// Stores the pages and publishes a snapshot of the disk, up to but not including its refs.
pub(crate) fn publish(
    store: &Store,
    generation: u64,
    parent: Option<SnapshotId>,
    changes: &[(u32, u32)],
) -> SnapshotId {
    publish_under(&store.lease().unwrap(), store, generation, parent, changes)
}

fn publish_under(
    lease: &Lease,
    store: &Store,
    generation: u64,
    parent: Option<SnapshotId>,
    changes: &[(u32, u32)],
) -> SnapshotId {
    let draft = draft(generation, parent);
    let mut pack = store.new_pack(lease).unwrap();
    for (_, number) in changes {
        // Some of them as changes of others.
        match number % 3 {
            0 => pack.put(hash(*number), &page(*number)).unwrap(),
            near => pack.put_changed(hash(*number), &page(*number), &hash(number ^ near)).unwrap(),
        };
    }
    let delta = disk_delta(changes);
    let mut regions = after(store, &mut pack, &draft, &delta);
    pack.finish().unwrap();
    store.publish(&draft, &delta, &mut regions, Some(b"devices"), &key(), lease).unwrap().0
}

/// Publishes a snapshot, its ref and the head.
pub(crate) fn commit(
    store: &Store,
    generation: u64,
    parent: Option<SnapshotId>,
    changes: &[(u32, u32)],
) -> SnapshotId {
    commit_for(MACHINE, store, generation, parent, changes)
}

/// The same for one of several machines.
pub(crate) fn commit_for(
    machine: MachineId,
    store: &Store,
    generation: u64,
    parent: Option<SnapshotId>,
    changes: &[(u32, u32)],
) -> SnapshotId {
    let lease = store.lease().unwrap();
    let id = publish_under(&lease, store, generation, parent, changes);
    let refs = store.refs(machine);
    refs.add(Generation(generation), id, &lease).unwrap();
    refs.set_head(Generation(generation), id, &lease).unwrap();
    id
}

/// The content of a table, page by page, as [`Store::read_pages`] hands it out.
pub(crate) fn contents(store: &Store, table: &PageTable) -> BTreeMap<u32, Vec<u8>> {
    let pages = std::sync::Mutex::new(BTreeMap::new());
    store
        .read_pages(table.iter(), 2, &|first, bytes| {
            for (index, page) in (first..).zip(bytes.as_chunks::<PAGE_SIZE>().0) {
                assert!(
                    pages.lock().unwrap().insert(index, page.to_vec()).is_none(),
                    "page {index} came twice"
                );
            }
            Ok(())
        })
        .unwrap();
    pages.into_inner().unwrap()
}

/// Everything verify says is damaged, one line each.
pub(crate) fn damage(store: &Store) -> Vec<String> {
    let report = store.verify(None, &|_| ()).unwrap();
    report.damaged.iter().map(|d| format!("{}: {}", d.path.display(), d.what)).collect()
}

/// How garbage is collected where nothing is special about it.
pub(crate) fn collecting(patience: Duration) -> Collecting<'static> {
    static NOTHING: BTreeSet<(MachineId, Generation)> = BTreeSet::new();
    Collecting { also: &Vec::new, patience, progress: &|_, _, _| (), without: &NOTHING }
}
