//! Pages on their way into a snapshot: read, hashed, dropped if they are what the last snapshot holds, packed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use watari_disk::{Disk, Sealed};
use watari_store::{Lease, PackWriter, Regions};
use watari_types::{Boot, Delta, PAGE_SIZE, Page, PageHash, PageSet, Region, RegionKind, RegionName};

use crate::history::History;
use crate::home::MachineHome;
use crate::ram::Ram;
use crate::{Error, Result};

/// Pages read from the guest at once: 1 MiB, small enough to stay in the cache until it is hashed.
const BATCH: usize = 256;

/// What one capture has gathered so far. Dropped without [`Gathered::finish`], it leaves nothing behind.
pub(crate) struct Gathered {
    base: Regions,
    pack: PackWriter,
    changed: BTreeMap<RegionName, BTreeMap<u32, PageHash>>,
    buffer: Vec<u8>,
}

/// What a capture put into the store.
pub(crate) struct Saved {
    /// What changed since the snapshot before.
    pub(crate) delta: Delta,
    /// What the regions hold now.
    pub(crate) regions: Regions,
    /// How much the store grew.
    pub(crate) stored_bytes: u64,
}

/// How many pages changed, by kind.
pub(crate) struct Changed {
    pub(crate) ram: u64,
    pub(crate) disk: u64,
}

impl Gathered {
    /// Nothing yet, to be compared with what `history` last saved.
    pub(crate) fn new(history: &History, lease: &Lease) -> Result<Gathered> {
        Ok(Gathered {
            base: history.regions().clone(),
            pack: history.store().new_pack(lease)?,
            changed: BTreeMap::new(),
            buffer: vec![0; BATCH * PAGE_SIZE],
        })
    }

    /// Takes pages of a region with their content. Of several contents for a page the last one counts.
    pub(crate) fn pages(&mut self, region: &RegionName, pages: &[u32], bytes: &[u8]) -> Result<()> {
        let known = self.base.tables().get(region);
        let changed = self.changed.entry(region.clone()).or_default();
        let contents = bytes.as_chunks().0;
        for ((&page, content), hash) in pages.iter().zip(contents).zip(PageHash::of_all(contents)) {
            let former = known.map_or(PageHash::ZERO_PAGE, |table| table.get(page));
            if hash == former {
                changed.remove(&page);
                continue;
            }
            match region.kind() {
                RegionKind::Ram => self.pack.put_changed(hash, content, &former)?,
                // Read one by one, while the guest waits.
                RegionKind::Disk | RegionKind::Boot => self.pack.put(hash, content)?,
            };
            changed.insert(page, hash);
        }
        Ok(())
    }

    /// Takes pages of a RAM block as they are now.
    pub(crate) fn ram(
        &mut self,
        range: usize,
        ram: &Ram,
        pages: &PageSet,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.batches(pages, progress, &ram.ranges()[range].name, |batch, into| ram.read(range, batch, into))
    }

    /// Takes pages of a disk as they are now.
    pub(crate) fn disk(
        &mut self,
        index: usize,
        disk: &Disk,
        pages: &PageSet,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.batches(pages, progress, &RegionName::disk(index), |batch, into| read_disk(disk, batch, into))
    }

    /// Takes pages of a disk as they were when they were sealed.
    pub(crate) fn sealed(&mut self, index: usize, sealed: &Sealed) -> Result<()> {
        self.batches(sealed.pages(), &mut |_| {}, &RegionName::disk(index), |batch, into| {
            read_sealed(sealed, batch, into)
        })
    }

    /// Takes kernel and initrd, unless the last snapshot has them already: they never change.
    pub(crate) fn boot_files(&mut self, home: &MachineHome, boot: &Boot) -> Result<()> {
        let Boot::Kernel { kernel, initrd, .. } = boot else { return Ok(()) };
        for region in std::iter::once(kernel).chain(initrd) {
            if !self.base.tables().contains_key(&region.name) {
                self.boot_file(home, region)?;
            }
        }
        Ok(())
    }

    fn boot_file(&mut self, home: &MachineHome, region: &Region) -> Result<()> {
        let path = home.boot_file(region.name.rest());
        let mut file = File::open(&path).map_err(Error::io("open", &path))?.take(region.bytes);
        let mut content: Page = [0; PAGE_SIZE];
        for page in 0..region.pages() as u32 {
            let mut filled = 0;
            while filled < PAGE_SIZE {
                match file.read(&mut content[filled..]).map_err(Error::io("read", &path))? {
                    0 => break,
                    n => filled += n,
                }
            }
            content[filled..].fill(0);
            self.pages(&region.name, &[page], &content)?;
        }
        Ok(())
    }

    /// How many pages changed.
    pub(crate) fn count(&self) -> Changed {
        let count = |kind| {
            let of_kind = self.changed.iter().filter(|(name, _)| name.kind() == kind);
            of_kind.map(|(_, pages)| pages.len() as u64).sum()
        };
        Changed { ram: count(RegionKind::Ram), disk: count(RegionKind::Disk) }
    }

    /// Makes the pack durable. The machine has the regions `sizes`.
    pub(crate) fn finish(mut self, sizes: &[Region]) -> Result<Saved> {
        let delta = self.changed.into_iter().map(|(name, pages)| (name, pages.into_iter().collect()));
        let delta: Delta = delta.collect();
        let mut regions = self.base.after(&delta, sizes);
        self.pack.put_trees(&mut regions, sizes)?;
        Ok(Saved { delta, regions, stored_bytes: self.pack.finish()?.stored_bytes })
    }

    fn batches(
        &mut self,
        pages: &PageSet,
        progress: &mut dyn FnMut(u64),
        region: &RegionName,
        read: impl Fn(&[u32], &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut rest = pages.iter();
        let mut batch: Vec<u32> = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            batch.extend(rest.by_ref().take(BATCH));
            if batch.is_empty() {
                self.buffer = buffer;
                return Ok(());
            }
            let bytes = &mut buffer[..batch.len() * PAGE_SIZE];
            read(&batch, bytes)?;
            self.pages(region, &batch, bytes)?;
            progress(batch.len() as u64);
        }
    }
}

/// Reads pages of a disk as they are now. `into` holds exactly these.
pub(crate) fn read_disk(disk: &Disk, pages: &[u32], into: &mut [u8]) -> Result<()> {
    each_run(pages, into, |first, bytes| {
        disk.read_at(u64::from(first) * PAGE_SIZE as u64, bytes).map_err(Error::disk("read"))
    })
}

/// Reads pages of a disk as they were when they were sealed. `into` holds exactly these.
pub(crate) fn read_sealed(sealed: &Sealed, pages: &[u32], into: &mut [u8]) -> Result<()> {
    for (&page, bytes) in pages.iter().zip(into.as_chunks_mut::<PAGE_SIZE>().0) {
        sealed.read(page, bytes).map_err(Error::disk("read"))?;
    }
    Ok(())
}

/// Hands out the runs of neighbouring pages in `batch`, each with its part of `bytes`.
fn each_run(
    batch: &[u32],
    mut bytes: &mut [u8],
    mut work: impl FnMut(u32, &mut [u8]) -> Result<()>,
) -> Result<()> {
    for run in batch.chunk_by(|a, b| a + 1 == *b) {
        let (part, rest) = bytes.split_at_mut(run.len() * PAGE_SIZE);
        work(run[0], part)?;
        bytes = rest;
    }
    Ok(())
}
