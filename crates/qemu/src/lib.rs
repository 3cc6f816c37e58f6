//! One QEMU process: its command line goes in, a machine with a monitor, RAM blocks and device state comes out.
//!
//! ```text
//!  Qemu::find_in ─► Launch::command ─► (spawn, elsewhere) ─► Monitor::connect
//!                     │ layouts                               │ stop · save_devices · cont
//!                     │ memory fd 60, state fd 61             │ ram_blocks · load_devices · input
//!                     ▼                                       ▼
//!                   argv of QEMU                            QMP, guest Agent
//! ```
//!
//! A machine is always started paused (`-S`). A new one is set going with [`Monitor::cont`]; one that comes from
//! a snapshot is launched with [`Launch::incoming`], gets its RAM blocks filled from outside, its devices with
//! [`Monitor::load_devices`], and only then goes on. The devices and their addresses are pinned by
//! [`DEVICE_LAYOUT`], because a snapshot can only be loaded into the machine it was taken of.

mod accel;
mod agent;
mod binary;
mod bridge;
mod channel;
mod error;
mod first_reads;
mod inherit;
mod input;
mod launch;
mod layout;
mod machine;
mod ram_blocks;

pub use accel::{Accel, AccelProbe, PROBE_APPEND, PROBE_MARKER, probe_accel};
pub use agent::Agent;
pub use binary::{Display, NEEDED, Qemu, QemuFinder, Version};
pub use bridge::{bridges_allowed, plug_into};
pub use channel::{Event, Monitor};
pub use error::Error;
pub use input::{Button, Input};
pub use launch::{
    AGENT_SOCKET, BootFiles, DESKTOP_SOCKET, GDB_SOCKET, IDENTITY_BYTES, Launch, MEMORY_PATH, MemoryBacking,
    QMP_SOCKET, SERIAL_SOCKET, STATE_PATH, VNC_SOCKET,
};
pub use layout::{CPU_MODEL, DEVICE_LAYOUT, MAX_DISKS, MAX_NICS};
pub use machine::RunState;
pub use ram_blocks::{RAM_BLOCK_MAIN, RamBlock};
