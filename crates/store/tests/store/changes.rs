//! Pages that are stored as changes of others: small, right, and never far from their bytes.

use std::fs;

use watari_store::Store;
use watari_types::{PAGE_SIZE, Page, PageHash};

use crate::support::*;

/// A page of noise with some bytes of its own.
fn version(number: u32, changed_bytes: usize) -> Page {
    let mut version = page(4000);
    let mut noise = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    noise.fill(&mut version[..changed_bytes]);
    version
}

/// Writes a pack of one page that took another one's place; the pack's length.
fn replace(store: &Store, page: &Page, former: &Page) -> u64 {
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    assert!(pack.put_changed(PageHash::of(page), page, &PageHash::of(former)).unwrap());
    pack.finish().unwrap().stored_bytes
}

#[test]
fn a_page_that_changes_a_little_each_time_costs_a_little_each_time() {
    let (folder, store) = store();
    let versions: Vec<Page> = (0..12).map(|number| version(number, 16)).collect();
    let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
    pack.put(PageHash::of(&versions[0]), &versions[0]).unwrap();
    let whole = pack.finish().unwrap().stored_bytes;
    for pair in versions.windows(2) {
        let bytes = replace(&store, &pair[1], &pair[0]);
        assert!(bytes < whole / 5, "{bytes} bytes, {whole} for the whole page");
    }
    // Each is a change of the first, so it takes two packs and no more to read any of them.
    let root = folder.path().join("store");
    let others: Vec<_> = fs::read_dir(root.join("packs")).unwrap().map(|e| e.unwrap().path()).collect();
    let last = Store::open(&root).unwrap();
    for page in &versions {
        let mut read = [0; PAGE_SIZE];
        last.read_page(&PageHash::of(page), &mut read).unwrap();
        assert!(read == *page);
    }
    for pack in others {
        let bytes = fs::read(&pack).unwrap();
        fs::remove_file(&pack).unwrap();
        let left = Store::open(&root).unwrap();
        let readable =
            versions.iter().filter(|page| left.read_page(&PageHash::of(page), &mut [0; PAGE_SIZE]).is_ok());
        let lost = versions.len() - readable.count();
        assert!(lost == 1 || lost == versions.len(), "{lost} pages lost with one pack");
        fs::write(&pack, bytes).unwrap();
    }
    assert_eq!(damage(&store), [""; 0]);
}

#[test]
fn a_page_that_has_become_another_is_stored_whole() {
    let (_folder, store) = store();
    let (first, second) = (version(1, PAGE_SIZE), version(2, PAGE_SIZE));
    store_pages(&store, [1]);
    replace(&store, &first, &page(1));
    assert!(replace(&store, &second, &first) > PAGE_SIZE as u64);
    for page in [first, second] {
        let mut read = [0; PAGE_SIZE];
        store.read_page(&PageHash::of(&page), &mut read).unwrap();
        assert!(read == page);
    }
}

#[test]
fn a_change_never_takes_the_place_of_the_page_itself() {
    let (folder, store) = store();
    let (a, b) = (version(1, 16), version(2, 16));
    let other = Store::open(&folder.path().join("store")).unwrap();
    let put = |store: &Store, page: &Page| {
        let mut pack = store.new_pack(&store.lease().unwrap()).unwrap();
        pack.put(PageHash::of(page), page).unwrap();
        pack
    };
    // Two writers that do not know of each other store the one page with its bytes and as a change.
    let whole_b = put(&other, &b);
    put(&store, &a).finish().unwrap();
    replace(&store, &b, &a);
    whole_b.finish().unwrap();
    let c = version(3, 16);
    let late = Store::open(&folder.path().join("store")).unwrap();
    replace(&late, &c, &b);
    for page in [a, b, c] {
        let mut read = [0; PAGE_SIZE];
        Store::open(&folder.path().join("store"))
            .unwrap()
            .read_page(&PageHash::of(&page), &mut read)
            .unwrap();
        assert!(read == page);
    }
    assert_eq!(damage(&late), [""; 0]);
}
