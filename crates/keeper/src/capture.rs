//! A snapshot of a machine that keeps running.
//!
//! ```text
//!  pre-copy   scan → read → hash → drop what did not change → compress → pack     guest runs
//!     └─ again, until the last round was small or the rounds stop shrinking
//!  pause      stop · seal disks · scan · copy the rest to staging · devices · cont    guest held
//!  after      staging and sealed disk pages → pack · fsync · manifest · refs      guest runs
//! ```
//!
//! Nothing in the pause waits for a disk, a network or a compressor. What was scanned stays *unpublished* (in
//! [`Ram`] and in each [`Disk`]) until the snapshot's ref exists, so a capture may fail at any step and the next
//! one still finds every page.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use watari_disk::{DeferredFlushes, Disk, Sealed};
use watari_store::{Lease, SnapshotDraft};
use watari_types::{Generation, PageSet, SnapshotId};

use crate::costs;
use crate::gather::{Gathered, Saved};
use crate::instance::Instance;
use crate::protocol::{Checkpointed, PauseParts, Progress};
use crate::record::Point;
use crate::staging::Staging;
use crate::{Error, Result};

/// A round this small is followed by the pause: copying as much again takes about a millisecond.
const SMALL_ROUND: u64 = 256;
/// More rounds than this only chase a guest that writes faster than we copy.
const MAX_ROUNDS: u32 = 8;

/// What becomes of the guest after the instant in which it is captured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It goes on, if it ran.
    GoesOn,
    /// It stays held.
    StaysHeld,
}

/// Captures the machine. On error the guest runs on (or is held, as it was before), and nothing is published.
pub(crate) fn checkpoint(
    instance: &mut Instance,
    message: &str,
    tag: Option<&str>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Checkpointed> {
    capture(instance, message, tag, Afterwards::GoesOn, progress)
}

/// Captures the machine for the last time: the guest stays held, so that it does nothing that is not in the snapshot.
/// Errors are those of [`checkpoint`], and leave the guest as they do there.
pub(crate) fn last_checkpoint(
    instance: &mut Instance,
    message: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Checkpointed> {
    let done = capture(instance, message, None, Afterwards::StaysHeld, progress);
    done.inspect_err(|_| go_on(instance))
}

/// Lets a guest go on that was to stay held, and was not captured.
pub(crate) fn go_on(instance: &mut Instance) {
    if instance.is_running()
        && let Err(error) = instance.monitor.cont()
    {
        tracing::error!(error = &error as &dyn std::error::Error, "the guest stays held");
    }
}

fn capture(
    instance: &mut Instance,
    message: &str,
    tag: Option<&str>,
    afterwards: Afterwards,
    progress: &mut dyn FnMut(Progress),
) -> Result<Checkpointed> {
    let began = Instant::now();
    instance.ensure_whole()?;
    let generation = instance.history.next_generation()?;
    let lease = instance.history.store().lease()?;
    let mut gathered = Gathered::new(&instance.history, &lease)?;
    gathered.boot_files(&instance.home, &instance.file.config.boot)?;
    let rounds = pre_copy(instance, &mut gathered, progress)?;
    let (held, pause, pause_ms) = hold(instance, afterwards)?;
    progress(Progress { step: "saving".into(), done: 0, total: held.pages() });
    let saved = save_held(instance, &mut gathered, &held);
    instance.staging.recycle(held.staging);
    saved?;
    let pages = gathered.count();
    let draft = draft(instance, generation, message);
    let mut saved = gathered.finish(&draft.regions)?;
    let (id, manifest_bytes) = publish(instance, &draft, &mut saved, &held.devices, &lease)?;
    instance.published(Point { generation, id }, saved.regions, held.sealed)?;
    if let Some(tag) = tag {
        instance.history.refs().tag(tag, id, &lease)?;
    }
    let done = Checkpointed {
        id,
        generation,
        pause_ms,
        total_ms: millis(began),
        ram_pages: pages.ram,
        disk_pages: pages.disk,
        stored_bytes: saved.stored_bytes + manifest_bytes,
        rounds,
        pause,
        tracker: instance.ram.tracker().to_string(),
    };
    costs::note(&instance.home, &done);
    Ok(done)
}

/// Copies what was written while the guest writes on. Returns the number of rounds.
fn pre_copy(
    instance: &mut Instance,
    gathered: &mut Gathered,
    progress: &mut dyn FnMut(Progress),
) -> Result<u32> {
    let (mut disks, mut ram) = instance.unpublished();
    let mut last = u64::MAX;
    for round in 1.. {
        instance.scan_into(&mut disks, &mut ram)?;
        let pages = disks.iter().chain(&ram).map(PageSet::len).sum();
        let mut done = 0;
        // Disks first: what the guest's page cache shares with them is then already in the pack.
        for (index, set) in disks.iter_mut().enumerate() {
            gathered.disk(index, &instance.disks[index], set, &mut |n| {
                done += n;
                progress(Progress { step: format!("copying, round {round}"), done, total: pages });
            })?;
            set.clear();
        }
        for (index, set) in ram.iter_mut().enumerate() {
            gathered.ram(index, &instance.ram, set, &mut |n| {
                done += n;
                progress(Progress { step: format!("copying, round {round}"), done, total: pages });
            })?;
            set.clear();
        }
        instance.staging.expect(pages);
        if pages <= SMALL_ROUND || pages > last.saturating_mul(3) / 4 || round == MAX_ROUNDS {
            return Ok(round);
        }
        last = pages;
    }
    Ok(MAX_ROUNDS)
}

/// What the pause took out of the guest.
pub(crate) struct Held {
    pub(crate) staging: Staging,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) devices: Vec<u8>,
}

impl Held {
    fn pages(&self) -> u64 {
        self.staging.pages() + self.sealed.iter().map(|s| s.pages().len()).sum::<u64>()
    }
}

/// The pause: everything between `stop` and `cont`. A guest that is to go on does so also when a step in between fails.
pub(crate) fn hold(instance: &mut Instance, afterwards: Afterwards) -> Result<(Held, PauseParts, f64)> {
    let running = instance.is_running();
    // Only what is written between here and the pause is left for its FLUSH.
    for disk in &instance.disks {
        disk.flush().map_err(Error::disk("flush"))?;
    }
    if afterwards == Afterwards::StaysHeld {
        instance.hands.let_go();
    }
    let hands = instance.hands.clone();
    let still = hands.still();
    let mut parts = PauseParts::default();
    let flushes: Vec<DeferredFlushes> = instance.disks.iter().map(Disk::defer_flushes).collect();
    let began = Instant::now();
    let held = (|| {
        if running {
            timed(&mut parts.stop_ms, || Ok(instance.monitor.stop()?))?;
        }
        still_moment(instance, &mut parts)
    })();
    let redeemed = timed(&mut parts.flush_ms, || {
        flushes.into_iter().try_for_each(DeferredFlushes::redeem).map_err(Error::disk("flush"))
    });
    if running && afterwards == Afterwards::GoesOn {
        timed(&mut parts.cont_ms, || Ok(instance.monitor.cont()?))?;
    }
    let pause_ms = if running { millis(began) } else { 0.0 };
    drop(still);
    redeemed?;
    Ok((held?, parts, pause_ms))
}

/// Takes memory, disks and devices, all of the same instant.
fn still_moment(instance: &mut Instance, parts: &mut PauseParts) -> Result<Held> {
    let sealed: Vec<Sealed> =
        timed(&mut parts.seal_ms, || Ok(instance.disks.iter().map(Disk::seal).collect()))?;
    let written = timed(&mut parts.scan_ms, || instance.ram.scan())?;
    let mut staging = instance.staging.take();
    timed(&mut parts.copy_ms, || staging.copy(&instance.ram, &written))?;
    instance.ram.settle();
    parts.pages = staging.pages();
    let devices = timed(&mut parts.devices_ms, || instance.save_devices())?;
    Ok(Held { staging, sealed, devices })
}

/// Hashes and packs what the pause took.
fn save_held(instance: &Instance, gathered: &mut Gathered, held: &Held) -> Result<()> {
    for (index, sealed) in held.sealed.iter().enumerate() {
        gathered.sealed(index, sealed)?;
    }
    held.staging.each(|range, pages, bytes| gathered.pages(&instance.ram.ranges()[range].name, pages, bytes))
}

/// What is said about the snapshot.
fn draft(instance: &Instance, generation: Generation, message: &str) -> SnapshotDraft {
    let history = &instance.history;
    SnapshotDraft {
        config: instance.file.config.clone(),
        machine_name: instance.file.name.clone(),
        parent: history.base().map(|point| point.id),
        generation,
        epoch: instance.record.epoch,
        branch: history.branch(generation),
        created_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
        message: message.to_owned(),
        regions: instance.ram.regions().into_iter().chain(instance.file.config.stored_regions()).collect(),
        qemu_version: instance.record.qemu_version.clone(),
        accelerator: instance.record.accel.to_string(),
        origin: instance.file.origin.clone(),
        has_memory: true,
    }
}

/// Makes the snapshot visible: manifest, then its ref, then the head. A crash in between leaves garbage for
/// gc, never a snapshot that is not whole.
fn publish(
    instance: &Instance,
    draft: &SnapshotDraft,
    saved: &mut Saved,
    devices: &[u8],
    lease: &Lease,
) -> Result<(SnapshotId, u64)> {
    let history = &instance.history;
    let Saved { delta, regions, .. } = saved;
    let (id, bytes) = history.store().publish(draft, delta, regions, Some(devices), &instance.key, lease)?;
    let refs = history.refs();
    refs.add(draft.generation, id, lease)?;
    refs.set_head(draft.generation, id, lease)?;
    Ok((id, bytes))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn timed<T>(ms: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let result = work();
    *ms += millis(began);
    result
}
