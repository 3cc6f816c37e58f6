//! The side where the guest runs.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use watari_types::{PAGE_SIZE, PageSet, RegionName};

use super::cut;
use super::frame::{Frame, MOST_PAGES, Wire};
use crate::capture::{self, Afterwards, Held};
use crate::gather::{read_disk, read_sealed};
use crate::instance::Instance;
use crate::protocol::{Migrated, Progress};
use crate::{Error, Result};

/// A round this small is followed by the pause: what is written meanwhile goes in a millisecond or two.
const SMALL_ROUND: u64 = 64;
/// More rounds than this only chase a guest that writes faster than the line is.
const MAX_ROUNDS: u32 = 32;
/// A guest whose last pages would take longer than this is not held for them.
const LONGEST: Duration = Duration::from_secs(10);
/// How long nothing may go while the guest is held.
const STALLED: Duration = Duration::from_secs(3);

/// Sends what differs from the last snapshot to a keeper that has that, over the socket at `path`, and holds the guest for the
/// last of it. It stays held.
///
/// # Errors
/// The guest runs on as before. [`Error::TooBusy`] if it would have to be held for long.
pub(crate) fn migrate(
    instance: &mut Instance,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Migrated> {
    instance.ensure_whole()?;
    let mut outgoing = Outgoing::connect(path)?;
    outgoing.expect(Frame::Ready)?;
    let rounds = outgoing.pre_copy(instance, progress)?;
    let pause_ms = outgoing.hold_and(instance, Outgoing::rest)?;
    Ok(Migrated { pages: outgoing.pages, bytes: outgoing.wire.sent, rounds, pause_ms })
}

pub(super) struct Outgoing {
    pub(super) wire: Wire,
    /// That were sent.
    pub(super) pages: u64,
    buffer: Vec<u8>,
}

impl Outgoing {
    pub(super) fn connect(path: &Path) -> Result<Outgoing> {
        let stream = UnixStream::connect(path).map_err(Error::io("connect to", path))?;
        Ok(Outgoing { wire: Wire::over(stream).map_err(cut)?, pages: 0, buffer: Vec::new() })
    }

    pub(super) fn expect(&mut self, wanted: Frame) -> Result<()> {
        if self.wire.receive().map_err(cut)? == wanted {
            return Ok(());
        }
        Err(cut(std::io::Error::other("the other side is out of step")))
    }

    /// Sends what is written while the guest writes on. Returns the number of rounds.
    fn pre_copy(&mut self, instance: &mut Instance, progress: &mut dyn FnMut(Progress)) -> Result<u32> {
        let (mut disks, mut ram) = instance.unpublished();
        let mut last = u64::MAX;
        for round in 1.. {
            instance.scan_into(&mut disks, &mut ram)?;
            let began = Instant::now();
            let total: u64 = disks.iter().chain(&ram).map(PageSet::len).sum();
            progress(Progress { step: format!("sending what was written, round {round}"), done: 0, total });
            for (index, set) in disks.iter_mut().enumerate() {
                let disk = &instance.disks[index];
                self.batches(&RegionName::disk(index), set, |batch, into| read_disk(disk, batch, into))?;
                set.clear();
            }
            for (index, set) in ram.iter_mut().enumerate() {
                let (ram, name) = (&instance.ram, &instance.ram.ranges()[index].name);
                self.batches(name, set, |batch, into| ram.read(index, batch, into))?;
                set.clear();
            }
            // What is on its way is not in the way of the last pages then.
            self.wire.send_round().map_err(cut)?;
            self.expect(Frame::Taken)?;
            instance.staging.expect(total);
            if total <= SMALL_ROUND || total > last.saturating_mul(3) / 4 || round == MAX_ROUNDS {
                // As much again is what the pause would have to send.
                return match began.elapsed() {
                    took if took > LONGEST => Err(Error::TooBusy { seconds: took.as_secs() }),
                    _ => Ok(round),
                };
            }
            last = total;
        }
        Ok(MAX_ROUNDS)
    }

    /// The pause, until `send` has sent all that is left. Returns how long it took, in milliseconds.
    pub(super) fn hold_and(
        &mut self,
        instance: &mut Instance,
        send: impl FnOnce(&mut Outgoing, &Instance, &Held) -> Result<()>,
    ) -> Result<f64> {
        self.wire.stream().set_write_timeout(Some(STALLED)).map_err(cut)?;
        let began = Instant::now();
        let sent = capture::hold(instance, Afterwards::StaysHeld).and_then(|(held, parts, _)| {
            send(self, instance, &held)?;
            instance.staging.recycle(held.staging);
            instance.stays_held("on its way to another node")?;
            Ok(parts)
        });
        let parts = sent.inspect_err(|_| capture::go_on(instance))?;
        let pause_ms = began.elapsed().as_secs_f64() * 1e3;
        tracing::info!(?parts, pause_ms, pages = self.pages, bytes = self.wire.sent, "all is sent");
        Ok(pause_ms)
    }

    fn rest(&mut self, instance: &Instance, held: &Held) -> Result<()> {
        self.send_sealed(held)?;
        held.staging
            .each(|range, pages, bytes| self.send_all(&instance.ram.ranges()[range].name, pages, bytes))?;
        self.wire.send_devices(&held.devices).map_err(cut)
    }

    /// Sends what was written to the disks since they were scanned.
    pub(super) fn send_sealed(&mut self, held: &Held) -> Result<()> {
        for (index, sealed) in held.sealed.iter().enumerate() {
            self.batches(&RegionName::disk(index), sealed.pages(), |batch, into| {
                read_sealed(sealed, batch, into)
            })?;
        }
        Ok(())
    }

    /// Sends any number of pages.
    pub(super) fn send_all(&mut self, region: &RegionName, pages: &[u32], bytes: &[u8]) -> Result<()> {
        for (pages, bytes) in pages.chunks(MOST_PAGES).zip(bytes.chunks(MOST_PAGES * PAGE_SIZE)) {
            self.send(region, pages, bytes)?;
        }
        Ok(())
    }

    pub(super) fn batches(
        &mut self,
        region: &RegionName,
        pages: &PageSet,
        read: impl Fn(&[u32], &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(MOST_PAGES * PAGE_SIZE, 0);
        let all: Vec<u32> = pages.iter().collect();
        for batch in all.chunks(MOST_PAGES) {
            let bytes = &mut buffer[..batch.len() * PAGE_SIZE];
            read(batch, bytes)?;
            self.send(region, batch, bytes)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn send(&mut self, region: &RegionName, pages: &[u32], bytes: &[u8]) -> Result<()> {
        self.pages += pages.len() as u64;
        self.wire.send_pages(region, pages, bytes).map_err(cut)
    }
}
