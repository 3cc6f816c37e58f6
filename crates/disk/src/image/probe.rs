//! What kind of image a file is.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Error;
use crate::image::signature;

/// A kind of image that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The bytes of the disk and nothing else.
    Raw,
    /// QEMU's own, possibly with a chain of backing files.
    Qcow2,
}

impl ImageFormat {
    pub(super) fn qemu_name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        }
    }
}

/// What is known about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its kind.
    pub format: ImageFormat,
    /// The size of the disk in it, in bytes.
    pub bytes: u64,
    /// The file it is based on, if any.
    pub backing_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct QemuInfo {
    format: String,
    virtual_size: u64,
    full_backing_filename: Option<PathBuf>,
}

/// Finds out what kind of image a file is. A raw image must be a multiple of 512 bytes long and begin with
/// something that disks begin with (a partition table, a file system, LVM, swap), or hold nothing but zeros.
///
/// # Errors
/// [`Error::NotAnImage`], [`Error::QemuImgMissing`], [`Error::QemuImg`] (also if a backing file is missing),
/// [`Error::Io`].
pub fn probe(path: &Path) -> Result<ImageInfo, Error> {
    // An absolute path is never taken for one of QEMU's protocols ("nbd:…", "json:…").
    let path = path.canonicalize().map_err(Error::io("find", path))?;
    let not_an_image = |why: String| Error::NotAnImage { path: path.clone(), why };
    if !path.is_file() {
        return Err(not_an_image("it is no regular file".into()));
    }
    let said =
        run(qemu_img("info").arg("--output=json").arg("--backing-chain").arg(&path), "examine", &path)?;
    let chain: Vec<QemuInfo> = serde_json::from_slice(&said)
        .map_err(|err| Error::io("understand qemu-img about", &path)(err.into()))?;
    let Some(top) = chain.into_iter().next() else {
        return Err(not_an_image("qemu-img finds nothing in it".into()));
    };
    let format = match top.format.as_str() {
        "qcow2" => ImageFormat::Qcow2,
        "raw" => {
            signature::check_raw(&path)?;
            ImageFormat::Raw
        }
        other => return Err(not_an_image(format!("its format {other} is neither qcow2 nor raw"))),
    };
    Ok(ImageInfo { format, bytes: top.virtual_size, backing_file: top.full_backing_filename })
}

/// A `qemu-img` command that talks to nobody but us.
pub(super) fn qemu_img(verb: &str) -> Command {
    let mut command = Command::new("qemu-img");
    command.arg(verb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command, doing: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let output = command.output().map_err(|err| not_started(err, path))?;
    if output.status.success() { Ok(output.stdout) } else { Err(gave_up(doing, path, &output.stderr)) }
}

pub(super) fn not_started(err: io::Error, path: &Path) -> Error {
    match err.kind() {
        io::ErrorKind::NotFound => Error::QemuImgMissing,
        _ => Error::io("start qemu-img for", path)(err),
    }
}

pub(super) fn gave_up(doing: &'static str, path: &Path, stderr: &[u8]) -> Error {
    let said = String::from_utf8_lossy(stderr);
    let last = said.trim_end().lines().last().unwrap_or("it gave no reason").trim();
    let message = last.strip_prefix("qemu-img: ").unwrap_or(last).to_owned();
    Error::QemuImg { doing, path: path.to_owned(), message }
}
