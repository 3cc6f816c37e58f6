//! The words every crate of Watari shares: pages, regions, deltas, ids, a machine's configuration.
//!
//! A machine is a set of [regions](RegionName) made of [pages](PAGE_SIZE); a snapshot is a [`Delta`] of
//! pages on an older snapshot. Nothing here does I/O.

mod bridge_name;
mod delta;
mod generations;
mod hash_pages;
mod ids;
mod machine;
mod node_name;
mod page;
mod page_set;
mod page_table;
mod region;
mod report;
mod retention;
mod rev;

pub use bridge_name::{BridgeName, BridgeNameError};
pub use delta::{Delta, RegionDelta};
pub use generations::Generations;
pub use ids::{Epoch, Generation, MachineId, MeshId, NodeId, ParseIdError, SnapshotId};
pub use machine::{
    BOOT_INITRD, BOOT_KERNEL, Boot, DiskConfig, MachineConfig, MachineName, MemorySize, NameError, NicConfig,
};
pub use node_name::{NodeName, NodeNameError};
pub use page::{PAGE_SIZE, Page, PageHash, is_zero, pages_for};
pub use page_set::PageSet;
pub use page_table::{NAMES_PER_NODE, NewNode, PageTable, levels_for, names_in};
pub use region::{Region, RegionKind, RegionName, RegionNameError};
pub use report::{ErrorKind, ErrorReport};
pub use retention::{Aged, KeepEvery, KeepEveryError, Retention};
pub use rev::{Rev, RevError, RevTarget};
