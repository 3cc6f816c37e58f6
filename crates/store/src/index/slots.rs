//! Memory for slots, all of which will be used: to get it at once, and not page by page when they are first touched, takes
//! a fifth off the time it takes to open a large store. (Huge pages take off half where the system has some at hand, and
//! where it has to make them it takes three times as long.)

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};

use memmap2::{MmapMut, MmapOptions};

/// An entry, or [`FREE`].
pub(super) type Slot = [u64; 2];
pub(super) const FREE: Slot = [0; 2];

/// Of a fixed number, which is not 0.
pub(super) struct Slots(MmapMut);

impl Slots {
    /// So many that are free.
    pub(super) fn free(count: usize) -> Slots {
        let layout = Layout::array::<Slot>(count).unwrap_or(Layout::new::<Slot>());
        let memory = MmapOptions::new().len(layout.size()).populate().map_anon();
        let memory = memory.unwrap_or_else(|_| handle_alloc_error(layout));
        Slots(memory)
    }
}

impl Deref for Slots {
    type Target = [Slot];

    fn deref(&self) -> &[Slot] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Slots {
    fn deref_mut(&mut self) -> &mut [Slot] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
