//! What is needed of several packs, in a new one.

use std::collections::BTreeSet;

use watari_types::{ErrorReport, PAGE_SIZE, PageHash};

use super::mark::{Mark, Reached};
use super::plan::Plan;
use super::{Collected, Collecting};
use crate::error::{At, Error};
use crate::lease::Lease;
use crate::pack::{Decoder, PackId, PackStats, PackWriter, names_of};
use crate::store::Store;

/// A frame that is needed as a whole and has so many pages is taken as it is. Smaller ones compress better together.
const LARGE_FRAME: u32 = 48;

impl Store {
    /// Writes what is needed of packs that are to be merged, and tells which packs can go then, the dead ones included. Where
    /// that is not possible, for want of space or because of damage, they stay, which is noted.
    pub(super) fn rewrite(
        &self,
        mark: &Mark<'_>,
        plan: &Plan,
        lease: &Lease,
        how: &Collecting<'_>,
        done: &mut Collected,
    ) -> Result<BTreeSet<PackId>, Error> {
        let mut gone: BTreeSet<PackId> = plan.dead.iter().copied().collect();
        let (mut written, mut bytes) = (BTreeSet::new(), 0);
        for (number, group) in (0..).zip(&plan.merged) {
            if bytes >= plan.part {
                done.is_part = true;
                break;
            }
            (how.progress)("merging packs", number, plan.merged.len() as u64);
            let needed: Vec<&Reached> = group.iter().filter_map(|id| mark.packs.get(id)).collect();
            match self.merge(&needed, lease) {
                Ok(pack) => {
                    done.packs_written += 1;
                    done.written_bytes += pack.stored_bytes;
                    bytes += pack.stored_bytes;
                    written.extend(pack.id);
                    gone.extend(group);
                }
                Err(e @ (Error::NoSpace { .. } | Error::Damaged { .. })) => {
                    done.left.push(ErrorReport::chain(&e))
                }
                Err(e) => return Err(e),
            }
        }
        // What was written may be just what one of them is: after a collection that was cut short.
        Ok(&gone - &written)
    }

    /// Writes what is needed of these packs into one.
    pub(crate) fn merge(&self, packs: &[&Reached], lease: &Lease) -> Result<PackStats, Error> {
        let mut writer = self.new_pack(lease)?;
        let mut decoder = Decoder::new().at("start decompressing", &self.layout().root)?;
        for reached in packs {
            let names = reached.pack.names()?;
            for frame in 0..reached.pack.frames().len() as u32 {
                copy(reached, frame, &names, &mut decoder, &mut writer)?;
            }
        }
        writer.finish()
    }
}

/// Copies what is needed of a frame. Every bit of it is checked first: what is written anew looks sound for ever.
fn copy(
    reached: &Reached,
    number: u32,
    names: &[PageHash],
    decoder: &mut Decoder,
    writer: &mut PackWriter,
) -> Result<(), Error> {
    let pack = &reached.pack;
    let frame = &pack.frames()[number as usize];
    let names = names_of(frame, names);
    let is_needed = |slot: &u32| reached.contains(frame.first_page + slot);
    let needed = (0..frame.pages).filter(is_needed).count() as u32;
    if needed == 0 {
        return Ok(());
    }
    let group = |slot: u32| reached.group(frame.first_page + slot);
    let is_alike = (1..frame.pages).all(|slot| group(slot) == group(0));
    if needed == frame.pages && frame.pages >= LARGE_FRAME && is_alike {
        return writer.put_frame(frame, names, decoder.check(pack, number)?.0);
    }
    let content = decoder.decode_checked(pack, number)?;
    let mut page = [0; PAGE_SIZE];
    for slot in (0..frame.pages).filter(is_needed) {
        let base = content.copy(slot, &mut page);
        writer.put_copy(names[slot as usize], &page, base, group(slot))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use watari_types::{RegionName, SnapshotId};

    use crate::Store;
    use crate::power::support::{collecting, commit, contents, store};

    /// How many frames it takes to read what the disk holds at a snapshot.
    fn frames(store: &Store, id: SnapshotId) -> usize {
        let table = &store.page_tables(id).unwrap()[&RegionName::disk(0)];
        let places = table.iter().map(|(_, page)| store.find(&page).unwrap());
        places.map(|place| place.frame_key()).collect::<BTreeSet<_>>().len()
    }

    #[test]
    fn what_the_newest_snapshot_holds_lies_together() {
        let (_folder, store) = store();
        let mut id = commit(&store, 1, None, &(0..200).map(|page| (page, 3 * page + 3)).collect::<Vec<_>>());
        // All of them kept, and each has something that the newest does not.
        for generation in 2..12_u32 {
            let changes = (0..40).map(|page| (page * 5 + generation % 3, 3 * (page + 1000 * generation)));
            id = commit(&store, u64::from(generation), Some(id), &changes.collect::<Vec<_>>());
        }
        let before = contents(&store, &store.page_tables(id).unwrap()[&RegionName::disk(0)]);
        assert!(frames(&store, id) > 6);
        store.collect(&collecting(Duration::from_secs(60))).unwrap();
        assert_eq!((store.pack_count(), frames(&store, id)), (1, 4));
        assert!(contents(&store, &store.page_tables(id).unwrap()[&RegionName::disk(0)]) == before);
    }
}
