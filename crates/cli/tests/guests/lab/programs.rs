//! Other people's programs, none of which outlives the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::{Lab, text};

/// What a program that hangs is given, in seconds. None takes nearly as long.
const LIMIT_SECONDS: &str = "240";

/// A process that is ended when this is dropped.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Running {
        Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command for a program of the system.
pub fn program<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(name);
    // What repairs file systems is not in everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    command.args(arguments).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a program to its end or, should it hang, kills it.
pub fn outcome<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    let limited = ["-k", "1", LIMIT_SECONDS, name].map(OsStr::new);
    let arguments: Vec<S> = arguments.into_iter().collect();
    program("timeout", limited.into_iter().chain(arguments.iter().map(AsRef::as_ref))).output().unwrap()
}

/// Runs a program that must succeed; what it printed.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = outcome(name, arguments);
    assert!(output.status.success(), "{name}: {}\n{}", output.status, said(&output));
    said(&output)
}

/// Everything a program printed.
pub fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// A snapshot's disk, served for as long as this lives.
pub struct ServedDisk {
    pub uri: String,
    _server: Running,
}

impl ServedDisk {
    pub fn of(lab: &Lab, revision: &str) -> ServedDisk {
        let mut command = lab.watari(&["disk", "serve", revision, "--json"]);
        let mut server = Running::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let export: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        ServedDisk { uri: export["uri"].as_str().unwrap().to_owned(), _server: server }
    }
}
