//! A node of the test's own: a home in a temporary folder, its daemon, and the `watari` program to use it.
//! Whatever it started is ended when it is dropped, also when the test fails.

pub mod chance;
pub mod programs;
pub mod small;
pub mod spaces;
pub mod victim;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use watari_keeper::home::Home;

/// A guest under plain emulation on a busy machine takes its time; only a hang takes this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Lab {
    folder: TempDir,
    /// The network namespace that it is in, if not the test's.
    space: Option<String>,
    environment: Vec<(String, PathBuf)>,
}

impl Lab {
    /// A home with its daemon running.
    pub fn new() -> Lab {
        let lab = Lab::without_daemon();
        lab.ok(&["up"]);
        lab
    }

    /// A home and nothing else.
    pub fn without_daemon() -> Lab {
        let folder = tempfile::Builder::new().prefix("wl").tempdir().unwrap();
        let lab = Lab { folder, space: None, environment: Vec::new() };
        // What the host can do was found out by an earlier test of this build; where KVM hangs, that takes a while.
        fs::create_dir(lab.home().join("node")).unwrap();
        let _ = fs::copy(known_accelerator(), lab.home().join("node/accel.json"));
        lab
    }

    /// A node of that name, which listens on loopback once it is in a mesh.
    pub fn of_mesh(name: &str) -> Lab {
        Lab::at(name, "127.0.0.1:0", None)
    }

    /// A node of that name, which listens there once it is in a mesh; maybe in a network namespace.
    pub fn at(name: &str, listen: &str, space: Option<&str>) -> Lab {
        Lab::with(&format!("name = \"{name}\"\nlisten = [\"{listen}\"]"), space, &[])
    }

    /// A node with these settings for its mesh; maybe in a network namespace, with more in its environment.
    pub fn with(mesh: &str, space: Option<&str>, environment: &[(&str, PathBuf)]) -> Lab {
        let mut lab = Lab::without_daemon();
        lab.space = space.map(str::to_owned);
        lab.environment = environment.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
        fs::write(lab.home().join("node/settings.toml"), format!("[mesh]\n{mesh}\n")).unwrap();
        lab.ok(&["up"]);
        lab
    }

    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// A command on this home.
    pub fn watari(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_watari");
        let mut command = Command::new(if self.space.is_some() { "ip" } else { program });
        if let Some(space) = &self.space {
            command.args(["netns", "exec", space, program]);
        }
        let environment = self.environment.iter().map(|(name, path)| (name, path));
        command.env("WATARI_HOME", self.home()).envs(environment).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed; its JSON.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "watari {arguments:?} failed\n{}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.logs()
        );
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("watari {arguments:?} printed no JSON ({e}): {}", text(&output.stdout))
        })
    }

    /// Runs a command that must fail as the contract says; its `error`.
    pub fn fails(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "watari {arguments:?}: {}", text(&output.stdout));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("watari {arguments:?} printed no JSON ({e}): {}", text(&output.stdout))
        });
        let error = value["error"].clone();
        let message = error["message"].as_str().unwrap_or_else(|| panic!("no message in {value}"));
        assert!(!message.is_empty() && !message.contains('\n'), "not one line: {message:?}");
        error
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.watari(arguments).arg("--json").output().unwrap()
    }

    /// A machine's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.home().join("machines").join(name)
    }

    /// What a machine printed on its serial console so far.
    pub fn serial(&self, name: &str) -> String {
        fs::read(self.folder(name).join("serial.log")).map_or(String::new(), |bytes| text(&bytes))
    }

    /// The console from now on: what is printed later than this call.
    pub fn listen(&self, name: &str) -> Console<'_> {
        Console { lab: self, name: name.to_owned(), from: self.serial(name).len() }
    }

    /// The console from the machine's first word on.
    pub fn listen_from_start(&self, name: &str) -> Console<'_> {
        Console { lab: self, name: name.to_owned(), from: 0 }
    }

    /// Types into a machine's serial console.
    pub fn type_into(&self, name: &str, keys: &str) {
        let mut console = self.watari(&["console", name]);
        let mut console = console.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut console.stdin.take().unwrap(), keys.as_bytes()).unwrap();
        console.wait().unwrap();
    }

    /// Waits until a machine is in a state.
    pub fn wait_for_state(&self, name: &str, state: &str) -> Value {
        wait(&format!("{name} to be {state}"), || {
            let info = self.ok(&["show", name]);
            (machine(&info)["state"] == state).then(|| machine(&info).clone())
        })
    }

    /// Waits until this node sees the one of that name, or is it.
    pub fn wait_for_node(&self, name: &str) {
        wait(&format!("{name} to be seen"), || {
            let nodes = self.ok(&["nodes"])["nodes"].as_array().unwrap().clone();
            let node = nodes.into_iter().find(|node| node["name"] == name)?;
            (node["state"] == "alive" || node["state"] == "here").then_some(())
        });
    }

    /// The machine's entry in `list`.
    pub fn machine(&self, name: &str) -> Value {
        let list = self.ok(&["list"]);
        let machines = list["machines"].as_array().unwrap();
        machines.iter().find(|m| m["name"] == name).unwrap_or_else(|| panic!("{name} not in {list}")).clone()
    }

    /// Process id of a machine's QEMU or keeper (`qemu_pid`, `keeper_pid`).
    pub fn pid(&self, name: &str, which: &str) -> u32 {
        let machine = self.machine(name);
        machine["instance"][which].as_u64().unwrap_or_else(|| panic!("no {which} in {machine}")) as u32
    }

    /// Kills a machine's keeper, and waits until another one has taken the machine over.
    pub fn replace_keeper(&self, name: &str) {
        let (keeper, qemu) = (self.pid(name, "keeper_pid"), self.pid(name, "qemu_pid"));
        kill(keeper);
        self.wait_for_another_keeper(name, keeper);
        assert_eq!(self.pid(name, "qemu_pid"), qemu, "its QEMU did not live on");
    }

    /// Waits until a machine runs with another keeper than this one, which was killed.
    pub fn wait_for_another_keeper(&self, name: &str, keeper: u32) {
        wait("another keeper", || {
            let now = self.machine(name);
            let pid = now["instance"]["keeper_pid"].as_u64();
            (now["state"] == "running" && pid.is_some_and(|pid| pid != u64::from(keeper))).then_some(())
        });
    }

    /// The generations of a machine's snapshots, newest first.
    pub fn generations(&self, name: &str) -> Vec<u64> {
        let log = self.ok(&["log", name]);
        log["snapshots"].as_array().unwrap().iter().map(|s| s["generation"].as_u64().unwrap()).collect()
    }

    /// All logs there are, for the message of a failed test.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        let mut folders = vec![self.home().join("node")];
        folders.extend(
            fs::read_dir(self.home().join("machines")).into_iter().flatten().flatten().map(|e| e.path()),
        );
        for folder in folders {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    let tail = text(&bytes[bytes.len().saturating_sub(3000)..]);
                    logs += &format!("--- {}\n{tail}\n", entry.path().display());
                }
            }
        }
        logs
    }

    /// Starts a demo machine whose guest runs a program of `watari-guest`, and waits for its first words.
    pub fn start_demo(&self, name: &str, memory: &str, disk: &str, run: &str, until: &str) {
        let create = ["create", name, "--demo", "--memory", memory, "--disk", disk, "--append", run];
        self.ok(&create);
        let console = self.listen(name);
        self.ok(&["start", name]);
        console.wait_for(until);
    }
}

/// Nodes of one mesh that all see each other.
pub fn joined(names: &[&str]) -> Vec<Lab> {
    let labs: Vec<Lab> = names.iter().map(|name| Lab::of_mesh(name)).collect();
    join(&labs, names);
    labs
}

/// Makes nodes a mesh, and waits until all see each other.
pub fn join(labs: &[Lab], names: &[&str]) {
    for lab in &labs[1..] {
        let ticket = labs[0].ok(&["invite"])["ticket"].as_str().unwrap().to_owned();
        let list = lab.ok(&["join", &ticket]);
        assert!(list["nodes"].as_array().unwrap().len() > 1, "{list}");
        assert_eq!(lab.fails(&["join", &ticket])["kind"], "wrong_state");
    }
    for lab in labs {
        names.iter().for_each(|name| lab.wait_for_node(name));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = fs::copy(self.home().join("node/accel.json"), known_accelerator());
        // Whatever runs on this home, found through what it wrote down itself.
        for entry in fs::read_dir(self.home().join("run")).into_iter().flatten().flatten() {
            let record = fs::read(entry.path().join("instance.json")).unwrap_or_default();
            if let Ok(record) = serde_json::from_slice::<Value>(&record)
                && let (Some(pid), Some(started)) =
                    (record["qemu_pid"].as_u64(), record["qemu_started"].as_u64())
            {
                watari_keeper::kill_if_same(pid as u32, started);
            }
        }
        let down = self.run(&["down", "--machines"]);
        let said = text(&down.stdout);
        let is_down = down.status.success() || said.contains("no_daemon");
        if !is_down && !std::thread::panicking() {
            panic!("the daemon is left: {said}\n{}", self.logs());
        }
        let heads = Home::open(self.home(), Path::new("/dev/shm")).unwrap().heads_if_any().to_owned();
        if down.status.success() && heads.exists() && !std::thread::panicking() {
            panic!("{} is left\n{}", heads.display(), self.logs());
        }
    }
}

/// The key of a node.
pub fn node_id(lab: &Lab) -> Value {
    lab.ok(&["up"])["node_id"].clone()
}

/// Waits until the guest of `m` has checked all its stamps twice where it is now.
pub fn check(lab: &Lab, from: usize) {
    let said = wait("two passes", || {
        let said = lab.serial("m").split_off(from);
        (numbers(&said, "STAMP pass=").len() >= 2).then_some(said)
    });
    assert!(!said.contains("STAMP ERROR"), "{said}");
}

fn known_accelerator() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("accel.json")
}

/// A machine's console from a certain moment on.
pub struct Console<'a> {
    lab: &'a Lab,
    name: String,
    from: usize,
}

impl Console<'_> {
    /// What was printed since.
    pub fn text(&self) -> String {
        let all = fs::read(self.lab.folder(&self.name).join("serial.log")).unwrap_or_default();
        text(&all[self.from.min(all.len())..])
    }

    /// Waits until `what` was printed. Returns everything printed since.
    pub fn wait_for(&self, what: &str) -> String {
        self.wait_until(what, |text| text.contains(what))
    }

    /// Waits until what was printed satisfies `enough`.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&str) -> bool) -> String {
        wait(&format!("{what:?} on the console of {}", self.name), || {
            let text = self.text();
            enough(&text).then_some(text)
        })
    }

    /// Waits for the next whole number behind `word`, as in `tick 12`.
    pub fn next_number(&self, word: &str) -> u64 {
        wait(&format!("{word} N on the console of {}", self.name), || {
            numbers(&self.text(), word).first().copied()
        })
    }
}

/// The numbers behind a word, one per line, where the line is complete.
pub fn numbers(text: &str, word: &str) -> Vec<u64> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .filter_map(|line| {
            line.split_once(word)?.1.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        })
        .collect()
}

/// The machine in what `show NAME` prints.
pub fn machine(show: &Value) -> &Value {
    if show["machine"].is_object() { &show["machine"] } else { show }
}

/// Asks again and again until there is an answer.
pub fn wait<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, answer)
}

/// The same for what takes longer.
pub fn wait_within<T>(limit: Duration, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
