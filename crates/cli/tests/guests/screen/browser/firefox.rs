//! Firefox without a window, which speaks WebDriver BiDi by itself.

use std::cell::RefCell;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use headless_chrome::protocol::cdp::Input::MouseButton;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::View;
use super::bidi::Bidi;
use crate::lab::programs::Running;
use crate::lab::wait;

/// Whatever it would ask others for goes to a proxy that is not there; what is on this computer it asks for itself.
const PREFERENCES: &str = r#"
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
"#;
/// A page's policy that something was kept from by is no error of a script's: it is made one.
const TELL: &str = "() => addEventListener('securitypolicyviolation', \
                    event => console.error(event.violatedDirective, event.blockedURI))";

/// A page in a Firefox of its own, which ends when this is dropped.
pub struct Firefox {
    bidi: RefCell<Bidi>,
    /// Its tab.
    context: String,
    _process: Process,
}

/// Firefox's processes, and the folder of all that they write.
struct Process {
    main: Running,
    profile: TempDir,
}

impl Process {
    fn start() -> Process {
        let profile = tempfile::tempdir().unwrap();
        fs::write(profile.path().join("user.js"), PREFERENCES).unwrap();
        let mut command = Command::new("firefox-esr");
        command
            .args(["--headless", "--no-remote", "--width", "1280", "--height", "900"])
            .args(["--remote-debugging-port", "0", "--profile"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Process { main: Running::start(&mut command), profile }
    }

    /// Where it listens, once it says so.
    fn port(&self) -> u16 {
        let file = self.profile.path().join("WebDriverBiDiServer.json");
        wait("Firefox", || {
            let told: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            told["ws_port"].as_u64()
        }) as u16
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The main process is not waited for before, so nobody else has its number.
        if let Some(group) = Pid::from_raw(self.main.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Firefox {
    pub fn open(url: &str) -> Firefox {
        let process = Process::start();
        let mut bidi = Bidi::connect(process.port());
        bidi.command("session.subscribe", json!({ "events": ["log.entryAdded"] }));
        bidi.command("script.addPreloadScript", json!({ "functionDeclaration": TELL }));
        let tree = bidi.command("browsingContext.getTree", json!({}));
        let context = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        let firefox = Firefox { bidi: RefCell::new(bidi), context, _process: process };
        firefox.go(url);
        firefox
    }

    /// Gives a command about the tab.
    fn command(&self, method: &str, mut params: Value) -> Value {
        params["context"] = json!(self.context);
        self.bidi.borrow_mut().command(method, params)
    }

    /// Follows an address.
    pub fn go(&self, url: &str) {
        self.command("browsingContext.navigate", json!({ "url": url, "wait": "complete" }));
    }

    /// Text comes that no key was pressed for.
    pub fn insert(&self, text: &str) {
        self.evaluate(&format!("document.execCommand('insertText', false, {text:?})"));
    }

    fn act(&self, actions: Value) {
        self.command("input.performActions", json!({ "actions": [actions] }));
    }

    /// The warnings and errors of all its pages so far.
    pub fn complaints(&self) -> Vec<String> {
        // They come before the answer to whatever is asked.
        self.evaluate("null");
        let events = self.bidi.borrow_mut().events();
        let entries = events.iter().map(|event| &event["params"]);
        entries
            .filter(|entry| entry["level"] != "info" && entry["level"] != "debug")
            .map(Value::to_string)
            .collect()
    }
}

impl View for Firefox {
    fn evaluate(&self, expression: &str) -> Value {
        let target = json!({ "context": self.context });
        let params = json!({ "expression": expression, "target": target, "awaitPromise": true });
        let mut outcome = self.bidi.borrow_mut().command("script.evaluate", params);
        assert_eq!(outcome["type"], "success", "{expression}: {}", outcome["exceptionDetails"]["text"]);
        outcome["result"]["value"].take()
    }

    fn key(&self, code: &str, is_down: bool) {
        let kind = if is_down { "keyDown" } else { "keyUp" };
        let action = json!({ "type": kind, "value": value(code) });
        self.act(json!({ "type": "key", "id": "keyboard", "actions": [action] }));
    }

    fn click(&self, x: f64, y: f64, button: MouseButton) {
        let button = match button {
            MouseButton::Right => 2,
            _ => 0,
        };
        let actions = json!([
            { "type": "pointerMove", "x": x, "y": y },
            { "type": "pointerDown", "button": button },
            { "type": "pointerUp", "button": button },
        ]);
        self.act(json!({ "type": "pointer", "id": "pointer", "actions": actions }));
    }
}

/// How BiDi calls a key, by what it types on an American keyboard.
fn value(code: &str) -> char {
    match code {
        "Tab" => '\u{e004}',
        "ShiftLeft" => '\u{e008}',
        "AltRight" => '\u{e052}',
        _ => code.chars().last().unwrap().to_ascii_lowercase(),
    }
}
