//! The power button, and what follows.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::thread;

/// `struct input_event` on a 64-bit Linux: two words of time, type, code, value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Powers off when the power button is pressed.
pub(crate) fn run() -> Result<(), String> {
    let devices = fs::read_dir("/dev/input").map_err(|error| format!("/dev/input: {error}"))?;
    let listeners: Vec<_> = devices
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .filter_map(|entry| File::open(entry.path()).ok())
        .map(|device| thread::spawn(move || await_button(device)))
        .collect();
    for listener in listeners {
        let _ = listener.join();
    }
    Ok(())
}

fn await_button(mut device: File) {
    let mut event = [0; EVENT_BYTES];
    while device.read_exact(&mut event).is_ok() {
        let number = |at: usize| u16::from_le_bytes([event[at], event[at + 1]]);
        let pressed = event[20] == 1;
        if (number(16), number(18), pressed) == (EV_KEY, KEY_POWER, true) {
            end("poweroff");
        }
    }
}

/// Ends the machine: `poweroff`, `reboot` or `halt`.
pub(crate) fn end(how: &str) {
    let _ = Command::new("/bin/busybox").arg("sync").status();
    let _ = Command::new("/bin/busybox").args([how, "-f"]).status();
}
