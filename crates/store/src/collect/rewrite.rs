//! What is needed of several packs, in a new one.

use watari_types::{ErrorReport, PAGE_SIZE, PageHash};

use super::mark::{Mark, Reached};
use super::plan::Plan;
use super::{Collected, Collecting};
use crate::error::{At, Error};
use crate::lease::Lease;
use crate::pack::{Decoder, PackId, PackWriter, names_of};
use crate::store::Store;

/// A frame that is needed as a whole and has so many pages is taken as it is. Smaller ones compress better together.
const LARGE_FRAME: u32 = 48;

impl Store {
    /// Writes what is needed of packs that are to be merged, and tells which of them can go then. Where that is not
    /// possible, for want of space or because of damage, they stay, which is noted.
    pub(super) fn rewrite(
        &self,
        mark: &Mark<'_>,
        plan: &Plan,
        lease: &Lease,
        how: &Collecting<'_>,
        done: &mut Collected,
    ) -> Result<Vec<PackId>, Error> {
        let mut rewritten = Vec::new();
        for (number, group) in (0..).zip(&plan.merged) {
            (how.progress)("merging packs", number, plan.merged.len() as u64);
            let needed: Vec<&Reached> = group.iter().filter_map(|id| mark.packs.get(id)).collect();
            match self.merge(&needed, lease) {
                Ok(bytes) => {
                    done.packs_written += 1;
                    done.written_bytes += bytes;
                    rewritten.extend(group);
                }
                Err(e @ (Error::NoSpace { .. } | Error::Damaged { .. })) => {
                    done.left.push(ErrorReport::chain(&e))
                }
                Err(e) => return Err(e),
            }
        }
        Ok(rewritten)
    }

    /// Writes what is needed of these packs into one; its length in bytes.
    pub(crate) fn merge(&self, packs: &[&Reached], lease: &Lease) -> Result<u64, Error> {
        let mut writer = self.new_pack(lease)?;
        let mut decoder = Decoder::new().at("start decompressing", &self.layout().root)?;
        for reached in packs {
            let names = reached.pack.names()?;
            for frame in 0..reached.pack.frames().len() as u32 {
                copy(reached, frame, &names, &mut decoder, &mut writer)?;
            }
        }
        Ok(writer.finish()?.stored_bytes)
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
    if needed == frame.pages && frame.pages >= LARGE_FRAME {
        return writer.put_frame(frame, names, decoder.check(pack, number)?.0);
    }
    let content = decoder.decode_checked(pack, number)?;
    let mut page = [0; PAGE_SIZE];
    for slot in (0..frame.pages).filter(is_needed) {
        let base = content.copy(slot, &mut page);
        writer.put_copy(names[slot as usize], &page, base)?;
    }
    Ok(())
}
