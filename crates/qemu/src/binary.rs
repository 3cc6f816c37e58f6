//! The QEMU that is installed: where it is, how old it is, which machines it can be.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::excerpt;

const PROGRAM: &str = "qemu-system-x86_64";

/// The oldest QEMU that will do: `info ramblock` prints host addresses since 8.1, and a memory backend may be
/// read-only and yet give writable private memory (`rom=off`) since 8.2.
pub const NEEDED: Version = Version { major: 8, minor: 2, micro: 0 };

/// The machine type new machines get where it is offered: the oldest that [`NEEDED`] knows, so that a snapshot
/// can be resumed by every QEMU that will do.
const PORTABLE_MACHINE: &str = "pc-q35-8.2";

/// A version of QEMU, as `10.0.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[major, minor]) => Ok(Version { major, minor, micro: 0 }),
            Some(&[major, minor, micro]) => Ok(Version { major, minor, micro }),
            _ => Err(format!("{text:?} is not a version of QEMU")),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

/// How a QEMU can be asked what its machine shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Display {
    /// Over D-Bus ([`Monitor::serve_display`](crate::Monitor::serve_display)): it says what changes when it does, and shares the
    /// memory that it draws into.
    Dbus,
    /// Over VNC alone ([`VNC_SOCKET`](crate::VNC_SOCKET)).
    #[default]
    Vnc,
}

/// An installed QEMU that is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub binary: PathBuf,
    /// Its version.
    pub version: Version,
    /// The best display that it can have; D-Bus is a package of its own with some distributions.
    pub display: Display,
}

impl Qemu {
    /// The first `qemu-system-x86_64` in a search path (the form of `$PATH`).
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::TooOld`], or that the program cannot be run or is not QEMU.
    pub fn find_in(path: &OsStr) -> Result<Qemu, Error> {
        Qemu::locate(path).and_then(|binary| Qemu::at(&binary))
    }

    /// Where the first `qemu-system-x86_64` in a search path is, whatever it is.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn locate(path: &OsStr) -> Result<PathBuf, Error> {
        std::env::split_paths(path)
            .map(|folder| folder.join(PROGRAM))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| Error::Missing { program: PROGRAM, searched: path.to_owned() })
    }

    /// The QEMU at `binary`.
    ///
    /// # Errors
    /// [`Error::TooOld`], or that the program cannot be run or is not QEMU.
    pub fn at(binary: &Path) -> Result<Qemu, Error> {
        let answer = ask(binary, &["--version"])?;
        let version = parse_version(&answer).ok_or_else(|| Error::Strange {
            binary: binary.to_owned(),
            argument: "--version",
            answer: excerpt(&answer),
        })?;
        if version < NEEDED {
            return Err(Error::TooOld { binary: binary.to_owned(), found: version, need: NEEDED });
        }
        let displays = ask(binary, &["-display", "help"])?;
        Ok(Qemu { binary: binary.to_owned(), version, display: parse_display(&displays) })
    }

    /// The versioned Q35 machine types it offers, oldest first.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn machine_types(&self) -> Result<Vec<String>, Error> {
        Ok(parse_machine_types(&ask(&self.binary, &["-machine", "help"])?))
    }

    /// The machine type a new machine is pinned to: `pc-q35-8.2` where it is offered, else the newest.
    ///
    /// # Errors
    /// The program cannot be run, or offers no versioned Q35 machine.
    pub fn default_machine_type(&self) -> Result<String, Error> {
        let mut types = self.machine_types()?;
        if types.iter().any(|name| name == PORTABLE_MACHINE) {
            return Ok(PORTABLE_MACHINE.to_owned());
        }
        types.pop().ok_or_else(|| Error::Strange {
            binary: self.binary.clone(),
            argument: "-machine help",
            answer: String::from("no pc-q35 machine"),
        })
    }
}

/// Finds QEMU again and again, and asks a program that has not changed for its version only once: starting it
/// takes longer than a clone may spend on it.
#[derive(Debug)]
pub struct QemuFinder {
    path: OsString,
    last: Mutex<Option<(FileStamp, Qemu)>>,
}

/// What changes when a file is replaced: device, inode, length, time of the last change.
type FileStamp = (u64, u64, u64, i64, i64);

impl QemuFinder {
    /// Looks in a search path (the form of `$PATH`).
    pub fn new(path: OsString) -> QemuFinder {
        QemuFinder { path, last: Mutex::new(None) }
    }

    /// As [`Qemu::find_in`], at the time of the call.
    ///
    /// # Errors
    /// Those of [`Qemu::find_in`].
    pub fn find(&self) -> Result<Qemu, Error> {
        let binary = Qemu::locate(&self.path)?;
        let stamp = std::fs::metadata(&binary)
            .map(|meta| (meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
            .map_err(|source| Error::Run { binary: binary.clone(), source })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, qemu)) = &*last
            && (known, &qemu.binary) == (&stamp, &binary)
        {
            return Ok(qemu.clone());
        }
        let qemu = Qemu::at(&binary)?;
        *last = Some((stamp, qemu.clone()));
        Ok(qemu)
    }
}

fn ask(binary: &Path, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(binary)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Run { binary: binary.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse_version(answer: &str) -> Option<Version> {
    let rest = answer.lines().next()?.strip_prefix("QEMU emulator version ")?;
    rest.split([' ', '(', '-']).next()?.parse().ok()
}

fn parse_display(help: &str) -> Display {
    if help.lines().any(|line| line.trim() == "dbus") { Display::Dbus } else { Display::Vnc }
}

fn parse_machine_types(help: &str) -> Vec<String> {
    let mut types: Vec<(Version, String)> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| Some((name.strip_prefix("pc-q35-")?.parse().ok()?, name.to_owned())))
        .collect();
    types.sort();
    types.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_distributions_print() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(parse_version(debian).unwrap().to_string(), "10.0.2");
        assert_eq!(parse_version("QEMU emulator version 8.2.91").unwrap().to_string(), "8.2.91");
        assert_eq!(parse_version("bash: not QEMU"), None);
        assert!("7.2.0".parse::<Version>().unwrap() < NEEDED && NEEDED < "10.0.2".parse().unwrap());
    }

    #[test]
    fn machine_types_are_ordered_by_version_and_not_by_text() {
        let help = "Supported machines are:\nq35  Standard PC (alias of pc-q35-10.0)\npc-q35-10.0  x\n\
                    pc-q35-8.2  x\npc-q35-2.10 x\nmicrovm  y\n";
        assert_eq!(parse_machine_types(help), ["pc-q35-2.10", "pc-q35-8.2", "pc-q35-10.0"]);
    }

    #[test]
    fn a_missing_or_old_or_foreign_program_is_told_apart() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROGRAM);
        assert!(matches!(Qemu::find_in(folder.path().as_os_str()), Err(Error::Missing { .. })));
        let pretend = |says: &str| {
            std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            Qemu::find_in(folder.path().as_os_str())
        };
        assert!(matches!(pretend("QEMU emulator version 7.2.9"), Err(Error::TooOld { .. })));
        assert!(matches!(pretend("hello"), Err(Error::Strange { .. })));
        assert_eq!(pretend("QEMU emulator version 9.1.0").unwrap().version.to_string(), "9.1.0");
        let finder = QemuFinder::new(folder.path().as_os_str().to_owned());
        assert_eq!(finder.find().unwrap().version.to_string(), "9.1.0");
        let asked = folder.path().join("asked");
        let script =
            format!("#!/bin/sh\necho $* >>{}\necho 'QEMU emulator version 10.2.0'\n", asked.display());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        for _ in 0..3 {
            assert_eq!(finder.find().unwrap().version.to_string(), "10.2.0");
        }
        assert_eq!(
            std::fs::read_to_string(asked).unwrap(),
            "--version\n-display help\n",
            "once for all three"
        );
    }
}
