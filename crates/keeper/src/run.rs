//! The life of a keeper process, from its start to its machine's end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use watari_qemu::{Display, Event};
use watari_store::NodeKey;
use watari_types::MachineName;

use crate::arrival::Arrival;
use crate::ground::{Ground, last_words};
use crate::home::{Home, MachineHome};
use crate::instance::{Instance, set_clock};
use crate::lock;
use crate::migrate::Lender;
use crate::process::wait_for_exit;
use crate::protocol::{Reply, Start, Started};
use crate::record::{MachineFile, MachineState, Phase};
use crate::screen::Source;
use crate::server::{self, Desk};
use crate::settings::Settings;
use crate::status::Board;
use crate::{Error, Result};

/// How long those who asked something get to take their answer before the process is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs one machine until it ends, as the process `watari keeper`. Says on standard output how the start went
/// (see [`crate::protocol`]) and then closes it. A QEMU that it starts has that `display`.
pub fn run(home: &Path, tmpfs: &Path, name: MachineName, start: Start, display: Display) -> ExitCode {
    match live(home, tmpfs, &name, &start, display) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = error.report();
            tracing::error!(machine = %name, "{}", report.message);
            announce(&Reply::Error(report));
            ExitCode::FAILURE
        }
    }
}

fn live(home: &Path, tmpfs: &Path, name: &MachineName, start: &Start, display: Display) -> Result<()> {
    let began = Instant::now();
    let node = Home::open(home, tmpfs)?;
    let home = node.machine(name);
    home.create()?;
    let _lock = lock::own(&home.lock())?.ok_or_else(|| Error::AlreadyRunning { name: name.clone() })?;
    let ground = Ground {
        file: MachineFile::load(&home)?,
        before: MachineState::load(&home)?,
        key: NodeKey::load_or_create(&node.node_key())?,
        settings: Settings::load(&node)?,
        display,
        search_path: std::env::var_os("PATH").unwrap_or_default(),
        home: home.clone(),
        node,
    };
    let (instance, child) = ground.start(start)?;
    let started =
        Started { qemu_pid: instance.record.qemu_pid, ready_ms: began.elapsed().as_secs_f64() * 1e3 };
    tracing::info!(machine = %name, ready_ms = started.ready_ms, "the guest runs");
    let board = instance.board.clone();
    let goes_on = !instance.record.held && !matches!(start, Start::Boot { .. });
    let (ending, instance) = attend(instance, &home, &started, goes_on)?;
    let status = outlive(started.qemu_pid, child)?;
    let (phase, reason) = ending.verdict(status, &home);
    finish(&instance, &board, phase, &reason)
}

/// Opens the keeper's socket, listens to QEMU's events, and announces that the machine is there.
fn attend(
    instance: Instance,
    home: &MachineHome,
    started: &Started,
    goes_on: bool,
) -> Result<(Ending, Arc<Mutex<Instance>>)> {
    let ending = Ending::default();
    let socket = home.socket("keeper");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
    let events = instance.monitor.events();
    let has_debugger = instance.record.gdb;
    let arriving = instance.arrival.as_ref().map(Arrival::progress);
    let desk = Desk {
        board: instance.board.clone(),
        ending: ending.clone(),
        qemu: (instance.record.qemu_pid, instance.record.qemu_started),
        lender: Lender::of(&instance),
        screen: Source::of(&instance),
        hands: instance.hands.clone(),
        instance: Arc::new(Mutex::new(instance)),
    };
    let instance = Arc::clone(&desk.instance);
    let (board, notes) = (desk.board.clone(), ending.clone());
    let (changes, changed) = mpsc::channel();
    if has_debugger {
        // It may have done something while there was no keeper.
        let _ = changes.send(());
    }
    spawn("events", move || {
        for event in events {
            notes.note(&event, &board);
            if has_debugger && matches!(event.name.as_str(), "STOP" | "RESUME") {
                // Beside this thread, which must not wait for a capture.
                let _ = changes.send(());
            }
        }
    })?;
    let follower = desk.clone();
    spawn("debugger", move || changed.iter().for_each(|()| follower.follow_debugger()))?;
    if let Some(progress) = arriving {
        let desk = desk.clone();
        spawn("arrived", move || desk.see_memory_arrive(&progress))?;
    }
    spawn("socket", move || server::serve(listener, desk))?;
    if goes_on {
        let home = home.clone();
        spawn("clock", move || set_clock(&home))?;
    }
    announce(&Reply::Done(serde_json::to_value(started).map_err(|e| Error::Internal(e.to_string()))?));
    Ok((ending, instance))
}

/// Waits until QEMU has ended. Its exit status is only to be had if it is our child.
fn outlive(pid: u32, child: Option<Child>) -> Result<Option<ExitStatus>> {
    match child {
        Some(mut child) => child.wait().map(Some).map_err(Error::io("wait for", Path::new("QEMU"))),
        None => wait_for_exit(pid).map(|()| None).map_err(Error::io("wait for", Path::new("QEMU"))),
    }
}

/// Puts the machine's end on record, then tells whoever watches.
fn finish(instance: &Mutex<Instance>, board: &Board, phase: Phase, reason: &str) -> Result<()> {
    let mut instance = instance.lock().unwrap_or_else(PoisonError::into_inner);
    tracing::info!(?phase, reason, "the machine ended");
    // Nobody is to wait for what it does not need any more.
    instance.debt = None;
    instance.hydrations.clear();
    instance.arrival = None;
    for disk in &instance.disks {
        disk.flush().map_err(Error::disk("flush"))?;
    }
    instance.state(phase, reason.to_owned()).save(&instance.home)?;
    let home = &instance.home;
    for left in [home.instance(), home.arrived(), home.socket("keeper"), home.socket("disks")] {
        let _ = fs::remove_file(left);
    }
    board.end(phase, reason);
    board.wait_for_farewells(FAREWELL);
    Ok(())
}

/// What is known of why QEMU is about to end.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<&'static str>>>);

impl Ending {
    /// Notes a reason; the first one counts.
    pub(crate) fn set(&self, reason: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    fn note(&self, event: &Event, board: &Board) {
        match event.name.as_str() {
            // Sent before QEMU flushes the disks, which a capture must not wait for.
            "STOP" => board.guest_is_held(event.at),
            "SHUTDOWN" if event.data["guest"] == true => self.set("the guest powered off"),
            "BLOCK_IO_ERROR" if event.data["action"] == "stop" => {
                let full = event.data["nospace"] == true;
                let reason = if full {
                    "its disk's file system is full; make room and `resume` it"
                } else {
                    "its disk had an I/O error"
                };
                board.set(Phase::Paused, reason);
            }
            "GUEST_PANICKED" => board.set(board.phase(), "the guest's kernel panicked"),
            _ => {}
        }
    }

    /// How the machine ended.
    fn verdict(&self, status: Option<ExitStatus>, home: &MachineHome) -> (Phase, String) {
        if let Some(reason) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            return (Phase::Stopped, reason.to_owned());
        }
        let how = match status {
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("QEMU was killed by signal {signal}"),
                (None, Some(code)) => format!("QEMU exited with code {code}: {}", last_words(home)),
                (None, None) => "QEMU ended".to_owned(),
            },
            None => "QEMU ended; its exit status went to a keeper that had died".to_owned(),
        };
        (Phase::Crashed, how)
    }
}

/// Starts a thread that is not waited for.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(Error::io("start the thread", Path::new(name)))
}

/// Says a line on standard output and closes it: whoever started us waits for nothing more.
fn announce(reply: &Reply) {
    let mut out = std::io::stdout();
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
