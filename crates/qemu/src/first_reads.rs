//! What of the guest's memory its devices read when their state is loaded.

use std::ops::Range;

use serde_json::{Value, json};

use crate::machine::QUICK;
use crate::{Error, Monitor};

/// Main memory up to this size is in one piece: QEMU's q35 machine leaves the rest of the first 4 GiB to devices.
const IN_ONE_PIECE: u64 = 0xb000_0000;
/// Of more than that, so much is below the devices.
const BELOW: u64 = 0x8000_0000;
/// And the rest from here.
const ABOVE: u64 = 1 << 32;
/// Where a PC has its option ROMs and its firmware, which QEMU looks for its own parts in.
const ROMS: Range<u64> = 0xc_0000..0x10_0000;
/// What the firmware takes for its tables at the end of what is below the devices, the VM generation id among them: 128 KiB.
const TABLES: u64 = 0x2_0000;
/// What a virtio device may have, see the [specification](https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html).
const MOST_QUEUES: u32 = 64;
const MOST_ENTRIES: u64 = 32768;

impl Monitor {
    /// What devices read when their state is loaded, and again as soon as they have something to do, as bytes of main memory, which
    /// has `memory_bytes`: the queues of virtio devices, and the firmware's places. Nothing depends on its being all. Some ten
    /// milliseconds.
    pub fn first_reads(&self, memory_bytes: u64) -> Vec<Range<u64>> {
        let below = below_devices(memory_bytes);
        let mut found = vec![ROMS, below.saturating_sub(TABLES)..below];
        match self.queues() {
            Ok(parts) => {
                found.extend(parts.into_iter().filter_map(|part| in_main_memory(part, memory_bytes)))
            }
            // The commands are ones that QEMU calls experimental.
            Err(error) => tracing::debug!("where the queues of virtio devices are is not known: {error}"),
        }
        found
    }

    /// The parts of all queues that are used, in the guest's physical memory.
    fn queues(&self) -> Result<Vec<Range<u64>>, Error> {
        let devices = self.execute("x-query-virtio", json!({}), QUICK)?;
        let paths = devices.as_array().into_iter().flatten().filter_map(|device| device["path"].as_str());
        let mut found = Vec::new();
        for path in paths {
            for queue in 0..MOST_QUEUES {
                // There is none that has not those before it.
                let which = json!({"path": path, "queue": queue});
                let Ok(state) = self.execute("x-query-virtio-queue-status", which, QUICK) else { break };
                found.extend(parts(&state).into_iter().flatten());
            }
        }
        Ok(found)
    }
}

/// Where a queue's descriptors, what is available and what was used are in the guest's physical memory; of one that is used.
fn parts(state: &Value) -> Option<[Range<u64>; 3]> {
    let number = |name: &str| state[name].as_u64();
    let entries = number("vring-num").filter(|entries| (1..=MOST_ENTRIES).contains(entries))?;
    let part = |name, bytes| {
        let start = number(name).filter(|start| *start > 0)?;
        Some(start..start.checked_add(bytes)?)
    };
    Some([
        part("vring-desc", 16 * entries)?,
        part("vring-avail", 6 + 2 * entries)?,
        part("vring-used", 6 + 8 * entries)?,
    ])
}

/// How much of main memory is below the devices.
fn below_devices(memory_bytes: u64) -> u64 {
    if memory_bytes > IN_ONE_PIECE { BELOW } else { memory_bytes }
}

/// Which bytes of main memory these are of what the guest calls its physical memory.
fn in_main_memory(physical: Range<u64>, memory_bytes: u64) -> Option<Range<u64>> {
    let below = below_devices(memory_bytes);
    let (found, end) = match physical.start < ABOVE {
        true => (physical, below),
        false => (below + (physical.start - ABOVE)..below + (physical.end - ABOVE), memory_bytes),
    };
    (found.end <= end).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_devices_follows_what_is_below_them() {
        let small = 512 << 20;
        assert_eq!(in_main_memory(0x1000..0x2000, small), Some(0x1000..0x2000));
        assert_eq!(in_main_memory(small - 1..small + 1, small), None);
        assert_eq!(in_main_memory(ABOVE..ABOVE + 1, small), None);
        let large = 4 << 30;
        assert_eq!(in_main_memory(BELOW - 1..BELOW, large), Some(BELOW - 1..BELOW));
        assert_eq!(in_main_memory(BELOW..BELOW + 1, large), None);
        assert_eq!(in_main_memory(ABOVE..ABOVE + 9, large), Some(BELOW..BELOW + 9));
        let last = ABOVE + large - BELOW;
        assert_eq!(in_main_memory(last - 1..last, large), Some(large - 1..large));
        assert_eq!(in_main_memory(last..last + 1, large), None);
    }

    #[test]
    fn a_queue_that_is_not_used_is_nowhere() {
        let state = |used: u64, entries: u64| json!({"vring-num": entries, "vring-desc": 4096, "vring-avail": 8192, "vring-used": used});
        assert_eq!(parts(&state(12288, 256)), Some([4096..8192, 8192..8710, 12288..14342]));
        for state in [state(0, 256), state(12288, 0), state(12288, 65536), state(u64::MAX, 256), json!({})] {
            assert_eq!(parts(&state), None);
        }
    }
}
