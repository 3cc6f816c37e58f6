//! Who the machine is, as its node tells it.

use std::fs;

const FILE: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.watari/identity/raw";

/// The identity on one line, or nothing if the machine has none. Asks the hardware each time: after a resume
/// the answer may be another.
pub(crate) fn read() -> Option<String> {
    let raw = fs::read(FILE).ok()?;
    let text = String::from_utf8_lossy(&raw);
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
