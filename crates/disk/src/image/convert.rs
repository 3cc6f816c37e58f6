//! An image becomes a raw file.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use watari_types::{PAGE_SIZE, pages_for};

use crate::image::probe::{gave_up, not_started, probe, qemu_img};
use crate::{Error, map};

/// Converts an image to a sparse raw file at `to`, in place of what is there, of the image's size or
/// `grow_to` bytes, rounded up to whole pages; returns that size. `progress` is called with 0.0 to 1.0.
///
/// # Errors
/// As [`probe`], and [`Error::ImageTooBig`], [`Error::BadSize`]. Then `to` is as it was.
pub fn import(path: &Path, to: &Path, grow_to: Option<u64>, progress: &dyn Fn(f64)) -> Result<u64, Error> {
    let image = probe(path)?;
    if let Some(asked_bytes) = grow_to.filter(|asked| *asked < image.bytes) {
        return Err(Error::ImageTooBig { path: path.to_owned(), image_bytes: image.bytes, asked_bytes });
    }
    let bytes = pages_for(grow_to.unwrap_or(image.bytes)).saturating_mul(PAGE_SIZE as u64);
    map::check_size(bytes)?;
    let mut part = std::path::absolute(to).map_err(Error::io("find", to))?.into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let done = convert(path, image.format.qemu_name(), &part, progress).and_then(|()| {
        let file = OpenOptions::new().write(true).open(&part).map_err(Error::io("open", &part))?;
        file.set_len(bytes).map_err(Error::io("size", &part))?;
        fs::rename(&part, to).map_err(Error::io("name", to))
    });
    if done.is_err() {
        // Whatever else went wrong is what the caller has to hear of.
        let _ = fs::remove_file(&part);
    }
    done.map(|()| bytes)
}

fn convert(from: &Path, format: &str, to: &Path, progress: &dyn Fn(f64)) -> Result<(), Error> {
    let absolute = from.canonicalize().map_err(Error::io("find", from))?;
    let mut command = qemu_img("convert");
    command.args(["-p", "-f", format, "-O", "raw"]).arg(&absolute).arg(to);
    let mut child = command.spawn().map_err(|err| not_started(err, from))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // What could not be read is missing from a message, no more.
            let _ = stderr.read_to_end(&mut said);
        }
        said
    });
    let read = stdout.map_or(Ok(()), |stdout| report_progress(stdout, progress));
    let status = child.wait().map_err(Error::io("wait for qemu-img on", from))?;
    let said = errors.join().unwrap_or_default();
    read.map_err(Error::io("follow qemu-img on", from))?;
    if status.success() { Ok(()) } else { Err(gave_up("convert", from, &said)) }
}

/// `qemu-img -p` prints `    (12.34/100%)\r` again and again.
fn report_progress(mut from: impl Read, progress: &dyn Fn(f64)) -> io::Result<()> {
    let (mut pending, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        pending.extend(&buffer[..len]);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\r' || *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if let Some(percent) = percent_in(&String::from_utf8_lossy(&line)) {
                progress((percent / 100.0).clamp(0.0, 1.0));
            }
        }
    }
}

fn percent_in(line: &str) -> Option<f64> {
    line.trim().strip_prefix('(')?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn progress_is_read_however_the_output_is_cut() {
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let len = self.0.len().min(3).min(into.len());
                into[..len].copy_from_slice(&self.0[..len]);
                self.0 = &self.0[len..];
                Ok(len)
            }
        }
        let seen = RefCell::new(Vec::new());
        let text = b"    (0.00/100%)\r    (50.25/100%)\r    (100.00/100%)\r\n";
        report_progress(Drip(text), &|at| seen.borrow_mut().push(at)).unwrap();
        assert_eq!(*seen.borrow(), [0.0, 0.5025, 1.0]);
    }
}
