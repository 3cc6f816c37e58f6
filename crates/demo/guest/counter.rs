//! A counter that is seen on the serial line and on the screen and kept on the disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::disk::Disk;
use crate::identity;
use crate::page::{PAGE, Page};

const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_SECOND: u64 = 10;
const SERIAL: &str = "/dev/ttyS0";
const SCREEN: &str = "/dev/tty0";
/// There while somebody uses a shell on the serial line.
const SHELL: &str = "/run/shell";

/// Counts for ever: `tick N` ten times a second, and `IDENTITY …` when that has changed.
pub(crate) fn run() -> Result<(), String> {
    let mut outputs = Outputs::open()?;
    let disk = Disk::open()?.filter(|disk| disk.pages() > 0);
    let mut known = None;
    for tick in 1u64.. {
        let line = format!("tick {tick}");
        if let Some(disk) = &disk {
            disk.write(tick % disk.pages(), &text_page(&line))?;
        }
        outputs.print(&line);
        if tick % TICKS_PER_SECOND == 1 {
            let now = identity::read();
            if now != known {
                outputs.print(&format!("IDENTITY {}", now.as_deref().unwrap_or("unknown")));
                known = now;
            }
        }
        thread::sleep(TICK);
    }
    Ok(())
}

struct Outputs {
    serial: File,
    screen: Option<File>,
}

impl Outputs {
    fn open() -> Result<Outputs, String> {
        let open = |path| OpenOptions::new().write(true).open(path);
        let serial = open(SERIAL).map_err(|error| format!("{SERIAL}: {error}"))?;
        Ok(Outputs { serial, screen: open(SCREEN).ok() })
    }

    /// A console that does not take the line is no reason to stop counting.
    fn print(&mut self, line: &str) {
        // In one piece: others write to the same console.
        let line = format!("{line}\n");
        if !Path::new(SHELL).exists() {
            let _ = self.serial.write_all(line.as_bytes());
        }
        if let Some(screen) = &mut self.screen {
            let _ = screen.write_all(line.as_bytes());
        }
    }
}

/// A page that reads as the line.
fn text_page(line: &str) -> Page {
    let mut bytes = [0; PAGE];
    let text = format!("{line}\n");
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    let mut page = Page::ZERO;
    for (word, chunk) in page.0.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    page
}
