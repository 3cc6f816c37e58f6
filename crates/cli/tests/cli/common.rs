//! A home that is gone after the test, with its daemon.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use watari_keeper::home::Home;

/// A home, and the daemon that the test started for it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
    search_path: Option<PathBuf>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The JSON it printed, which must be all that it printed.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The kind of error it printed as JSON.
    pub(crate) fn error_kind(&self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(1), ""), "{self:?}");
        let error = &self.json()["error"];
        assert!(!error["message"].as_str().unwrap().is_empty() && error["hint"].is_string(), "{self:?}");
        error["kind"].as_str().unwrap().to_owned()
    }

    /// It went well.
    pub(crate) fn well(self) -> Done {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self
    }
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap(), daemon: None, search_path: None }
    }

    /// A home whose daemon answers.
    pub(crate) fn with_daemon() -> Bench {
        let mut bench = Bench::new();
        bench.start();
        bench
    }

    /// A home whose daemon finds programs in `folder` only.
    pub(crate) fn with_programs(folder: &Path) -> Bench {
        let mut bench = Bench::new();
        bench.search_path = Some(folder.to_owned());
        bench.start();
        bench
    }

    /// Starts the daemon and returns what it says about itself.
    pub(crate) fn start(&mut self) -> Value {
        let mut child =
            self.command(["--json", "node"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.daemon = Some(child);
        serde_json::from_str(&line).unwrap()
    }

    /// Ends the daemon with SIGKILL.
    pub(crate) fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits for the daemon to end by itself.
    pub(crate) fn wait_for_daemon(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("h")
    }

    /// A file of the test, outside of the home.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watari"));
        command.args(args).env("WATARI_HOME", self.home()).stdin(Stdio::null());
        if let Some(path) = &self.search_path {
            command.env("PATH", path);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        let output = self.command(args).output().unwrap();
        Done {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command, its words separated by blanks, for its JSON.
    pub(crate) fn json(&self, line: &str) -> Done {
        self.run(line.split_whitespace().chain(["--json"]))
    }

    /// Creates a machine that boots a kernel, without a disk.
    pub(crate) fn create(&self, name: &str) -> Value {
        let kernel = self.file("kernel", &fake_kernel());
        self.run(["create", name, "--json", "--kernel", kernel.to_str().unwrap()]).well().json()
    }

    /// Every file and folder of the machines, to see that nothing changed.
    pub(crate) fn machine_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.home().join("machines")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

/// What looks like a Linux kernel and never runs.
pub(crate) fn fake_kernel() -> Vec<u8> {
    let mut kernel = vec![0x90; 8192];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // One that `up` started is no child of the test.
        if self.home().join("run/node").exists() {
            let _ = self.command(["down"]).output();
        }
        // A daemon that was killed could not remove its folder of memory heads.
        if let Ok(heads) = Home::open(&self.home(), Path::new("/dev/shm")).and_then(|home| home.heads()) {
            let _ = fs::remove_dir_all(heads);
        }
    }
}
