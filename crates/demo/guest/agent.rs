//! A small guest agent: the commands a host needs after a resume and before a power-off.
//!
//! The protocol: <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::json::{Json, quote};
use crate::power;

const PORT: &str = "org.qemu.guest_agent.0";
/// How soon a host that connects is noticed: a read returns at once while there is none.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A longer request is dropped.
const LONGEST_REQUEST: usize = 64 << 10;
/// What a host puts before a request so that earlier, incomplete ones are forgotten.
const DELIMITER: u8 = 0xff;
const COMMANDS: [&str; 8] = [
    "guest-sync",
    "guest-sync-delimited",
    "guest-ping",
    "guest-info",
    "guest-get-time",
    "guest-set-time",
    "guest-shutdown",
    "guest-network-get-interfaces",
];

/// Answers requests for ever.
pub(crate) fn run() -> Result<(), String> {
    let path = port().ok_or_else(|| format!("there is no port {PORT}"))?;
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let mut port = opened.map_err(|error| format!("{path:?}: {error}"))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = port.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            request.clear();
            thread::sleep(LOOK_AGAIN);
        }
        for &byte in &buffer[..count] {
            match byte {
                DELIMITER => request.clear(),
                b'\n' => {
                    respond(&mut port, &request);
                    request.clear();
                }
                _ if request.len() < LONGEST_REQUEST => request.push(byte),
                _ => {}
            }
        }
    }
}

/// The device of the agent's port; the friendly link to it is udev's work, which is not here.
fn port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let is_ours = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT)
    };
    ports.into_iter().find(is_ours).map(|entry| PathBuf::from("/dev").join(entry.file_name()))
}

fn respond(port: &mut File, request: &[u8]) {
    if request.iter().all(u8::is_ascii_whitespace) {
        return;
    }
    let parsed = std::str::from_utf8(request).ok().and_then(Json::parse);
    let command = parsed.as_ref().and_then(|request| request.get("execute")?.text());
    let null = Json::Null;
    let arguments = parsed.as_ref().and_then(|request| request.get("arguments")).unwrap_or(&null);
    let answer = match command {
        Some(command) => answer(command, arguments),
        None => Err(String::from("not a request")),
    };
    let line = match answer {
        // A power-off is not answered.
        Ok(None) => return,
        Ok(Some(value)) => format!("{{\"return\": {value}}}\n"),
        Err(reason) => {
            format!("{{\"error\": {{\"class\": \"GenericError\", \"desc\": {}}}}}\n", quote(&reason))
        }
    };
    let lead: &[u8] = if command == Some("guest-sync-delimited") { &[DELIMITER] } else { &[] };
    // A host that is gone does not want the answer.
    let _ = port.write_all(&[lead, line.as_bytes()].concat());
}

/// The value to return, as JSON.
fn answer(command: &str, arguments: &Json) -> Result<Option<String>, String> {
    let value = match command {
        "guest-sync" | "guest-sync-delimited" => {
            let id = arguments.get("id").and_then(Json::integer).ok_or("guest-sync needs an id")?;
            id.to_string()
        }
        "guest-ping" => String::from("{}"),
        "guest-info" => info(),
        "guest-get-time" => {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since_1970.map_err(|error| error.to_string())?.as_nanos().to_string()
        }
        "guest-set-time" => {
            let time = arguments.get("time").and_then(Json::integer).ok_or("guest-set-time needs a time")?;
            clock::set(time)?;
            String::from("{}")
        }
        "guest-shutdown" => {
            let mode = arguments.get("mode").and_then(Json::text).unwrap_or("powerdown");
            power::end(match mode {
                "powerdown" => "poweroff",
                "reboot" => "reboot",
                "halt" => "halt",
                other => return Err(format!("unknown mode {other}")),
            });
            return Ok(None);
        }
        "guest-network-get-interfaces" => interfaces(),
        other => return Err(format!("The command {other} has not been found")),
    };
    Ok(Some(value))
}

fn info() -> String {
    let commands = COMMANDS.map(|name| {
        let answers = name != "guest-shutdown";
        format!("{{\"name\": \"{name}\", \"enabled\": true, \"success-response\": {answers}}}")
    });
    format!("{{\"version\": \"watari\", \"supported_commands\": [{}]}}", commands.join(", "))
}

fn interfaces() -> String {
    let cards = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let described: Vec<String> = cards
        .map(|card| {
            let name = card.file_name().to_string_lossy().into_owned();
            let address = fs::read_to_string(card.path().join("address")).unwrap_or_default();
            format!("{{\"name\": {}, \"hardware-address\": {}}}", quote(&name), quote(address.trim()))
        })
        .collect();
    format!("[{}]", described.join(", "))
}

/// The one thing the standard library cannot do.
mod clock {
    const CLOCK_REALTIME: i32 = 0;

    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }

    unsafe extern "C" {
        fn clock_settime(clock: i32, time: *const Timespec) -> i32;
    }

    /// Sets the clock to so many nanoseconds since 1970.
    pub(super) fn set(nanoseconds: i64) -> Result<(), String> {
        const SECOND: i64 = 1_000_000_000;
        let time =
            Timespec { seconds: nanoseconds.div_euclid(SECOND), nanoseconds: nanoseconds.rem_euclid(SECOND) };
        // SAFETY: the declaration is that of clock_settime(2) on 64-bit Linux, and `time` outlives the call.
        match unsafe { clock_settime(CLOCK_REALTIME, &time) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    }
}
