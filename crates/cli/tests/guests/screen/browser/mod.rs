//! Real browsers without a window, and a small guest to look at with them.

mod bidi;
mod firefox;
mod recording;
mod view;

pub use firefox::Firefox;
pub use recording::Recording;
pub use view::View;

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use headless_chrome::protocol::cdp::Input::{
    self, DispatchKeyEventTypeOption, DispatchMouseEventTypeOption, DispatchTouchEventTypeOption, MouseButton,
};
use headless_chrome::protocol::cdp::types::Method;
use headless_chrome::protocol::cdp::{Emulation, Page as Pages};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{self, Lab};

/// What a browser does not need here, and what would have it talk to others.
const ARGUMENTS: [&str; 7] = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
];
/// On a busy machine a browser takes its time.
const IDLE: Duration = Duration::from_secs(300);

/// Makes a machine whose guest is `guest.S`, and starts it.
pub fn start_guest(lab: &Lab, name: &str) {
    let [source, object, image] = ["guest.S", "guest.o", "guest.img"].map(|file| lab.home().join(file));
    fs::write(&source, include_str!("guest.S")).unwrap();
    run(Command::new("as").arg("--32").arg("-o").args([&object, &source]));
    run(Command::new("ld")
        .args(["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o"])
        .args([&image, &object]));
    let image = image.to_str().unwrap();
    lab.ok(&["create", name, "--image", image, "--memory", "32M", "--disk", "4M"]);
    lab.ok(&["start", name]);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", lab::text(&output.stderr));
}

/// The address that `watari screen` tells.
pub fn address(lab: &Lab, machine: &str, more: &[&str]) -> String {
    let said = lab.ok(&[&["screen", machine], more].concat());
    said["url"].as_str().unwrap().to_owned()
}

/// Pixels: rows from the top, red, green and blue.
#[derive(PartialEq, Eq)]
pub struct Pixels {
    pub width: u32,
    pub height: u32,
    pub bytes: Vec<u8>,
}

impl Pixels {
    fn decode(png: &[u8]) -> Pixels {
        let mut decoder = png::Decoder::new(Cursor::new(png));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        bytes.truncate(frame.buffer_size());
        let bytes = match frame.color_type {
            png::ColorType::Rgb => bytes,
            png::ColorType::Rgba => {
                bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
            }
            other => panic!("a picture of {other:?}"),
        };
        Pixels { width: frame.width, height: frame.height, bytes }
    }

    fn of_url(url: &str) -> Pixels {
        let png = url.strip_prefix("data:image/png;base64,").unwrap();
        Pixels::decode(&BASE64.decode(png.as_bytes()).unwrap())
    }

    /// What QEMU says that a machine shows.
    pub fn of_machine(lab: &Lab, machine: &str) -> Pixels {
        let path = lab.home().join("screenshot.png");
        lab.ok(&["screenshot", machine, path.to_str().unwrap()]);
        Pixels::decode(&fs::read(path).unwrap())
    }
}

/// What the library has of this knows no browser of today.
#[derive(Debug, Serialize)]
struct ReadTree {}

impl Method for ReadTree {
    const NAME: &'static str = "Accessibility.getFullAXTree";
    type ReturnObject = Value;
}

/// A page in a browser of its own, which ends when this is dropped.
pub struct Page {
    tab: Arc<Tab>,
    _browser: Browser,
}

impl Page {
    pub fn open(url: &str) -> Page {
        let options = LaunchOptions::default_builder()
            .sandbox(false)
            .window_size(Some((1280, 900)))
            .idle_browser_timeout(IDLE)
            .args(ARGUMENTS.iter().map(OsStr::new).collect())
            .build()
            .unwrap();
        let browser = Browser::new(options).unwrap();
        let tab = browser.new_tab().unwrap();
        tab.set_default_timeout(lab::PATIENCE);
        let page = Page { tab, _browser: browser };
        page.go(url);
        page
    }

    /// Follows an address.
    pub fn go(&self, url: &str) {
        self.tab.navigate_to(url).unwrap().wait_until_navigated().unwrap();
    }

    /// Text comes that no key was pressed for.
    pub fn insert(&self, text: &str) {
        self.tab.call_method(Input::InsertText { text: text.to_owned() }).unwrap();
    }

    /// Clicks on a button of the page as a person does, without which a browser does not let a page do some things. Returns where that
    /// is.
    pub fn click_on_button(&self, text: &str) -> (f64, f64) {
        let middle = self.evaluate(&format!(
            "(() => {{ const button = [...document.querySelectorAll('button')].find(button => button.textContent === '{text}'); \
             const box = button.getBoundingClientRect(); \
             return JSON.stringify([box.left + box.width / 2, box.top + box.height / 2]); }})()"
        ));
        let (x, y) = serde_json::from_str(middle.as_str().unwrap()).unwrap();
        self.click(x, y, MouseButton::Left);
        (x, y)
    }

    /// Moves the pointer to a place.
    pub fn point(&self, x: f64, y: f64) {
        self.mouse(DispatchMouseEventTypeOption::MouseMoved, x, y, None, None);
    }

    /// Turns the wheel at a place, by so many pixels down.
    pub fn wheel(&self, x: f64, y: f64, down: f64) {
        self.mouse(DispatchMouseEventTypeOption::MouseWheel, x, y, None, Some(down));
    }

    fn mouse(
        &self,
        kind: DispatchMouseEventTypeOption,
        x: f64,
        y: f64,
        button: Option<MouseButton>,
        down: Option<f64>,
    ) {
        let is_pressed = matches!(kind, DispatchMouseEventTypeOption::MousePressed);
        let buttons = button.as_ref().filter(|_| is_pressed).map(|button| match button {
            MouseButton::Left => 1,
            MouseButton::Right => 2,
            _ => 4,
        });
        self.tab
            .call_method(Input::DispatchMouseEvent {
                Type: kind,
                x,
                y,
                click_count: button.as_ref().map(|_| 1),
                button,
                buttons,
                modifiers: None,
                timestamp: None,
                force: None,
                tangential_pressure: None,
                tilt_x: None,
                tilt_y: None,
                twist: None,
                delta_x: down.map(|_| 0.0),
                delta_y: down,
                pointer_Type: None,
            })
            .unwrap();
    }

    /// Touches a place with a finger, for so long.
    pub fn touch(&self, x: f64, y: f64, how_long: Duration) {
        self.fingers(DispatchTouchEventTypeOption::TouchStart, &[(x, y)]);
        std::thread::sleep(how_long);
        self.fingers(DispatchTouchEventTypeOption::TouchEnd, &[]);
    }

    /// Moves two fingers that are so far from each other from a place on, so far down.
    pub fn swipe(&self, x: f64, y: f64, apart: f64, down: f64) {
        let at = |y: f64| [(x, y), (x + apart, y)];
        self.fingers(DispatchTouchEventTypeOption::TouchStart, &at(y));
        for step in 1..=10 {
            self.fingers(DispatchTouchEventTypeOption::TouchMove, &at(y + down * f64::from(step) / 10.0));
        }
        self.fingers(DispatchTouchEventTypeOption::TouchEnd, &[]);
    }

    fn fingers(&self, kind: DispatchTouchEventTypeOption, points: &[(f64, f64)]) {
        let touch_points = points.iter().zip(0_u8..).map(|(&(x, y), id)| Input::TouchPoint {
            x,
            y,
            radius_x: None,
            radius_y: None,
            rotation_angle: None,
            force: None,
            tangential_pressure: None,
            tilt_x: None,
            tilt_y: None,
            twist: None,
            id: Some(f64::from(id)),
        });
        let touch_points = touch_points.collect();
        let event = Input::DispatchTouchEvent { Type: kind, touch_points, modifiers: None, timestamp: None };
        self.tab.call_method(event).unwrap();
    }

    /// Makes the window another size, on a screen that has so many pixels for each of the page's.
    pub fn resize(&self, width: u32, height: u32, density: f64) {
        self.tab
            .call_method(Emulation::SetDeviceMetricsOverride {
                width,
                height,
                device_scale_factor: density,
                mobile: false,
                scale: None,
                screen_width: None,
                screen_height: None,
                position_x: None,
                position_y: None,
                dont_set_visible_size: None,
                screen_orientation: None,
                viewport: None,
                display_feature: None,
                device_posture: None,
            })
            .unwrap();
    }

    /// What a screen reader is told of the page: the role and the name of each thing that is there, in the order of the page.
    pub fn read(&self) -> Vec<(String, String)> {
        let tree = self.tab.call_method(ReadTree {}).unwrap();
        let said = |node: &Value, what: &str| node[what]["value"].as_str().unwrap_or_default().to_owned();
        let there = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        there.map(|node| (said(node, "role"), said(node, "name"))).collect()
    }

    /// What the window shows.
    pub fn seen(&self) -> Pixels {
        Pixels::decode(&self.capture())
    }

    fn capture(&self) -> Vec<u8> {
        self.tab.capture_screenshot(Pages::CaptureScreenshotFormatOption::Png, None, None, true).unwrap()
    }

    /// Writes what the window shows to a picture that stays there after the test, to be looked at.
    pub fn photograph(&self, name: &str) -> PathBuf {
        let png = self.capture();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, png).unwrap();
        path
    }
}

impl View for Page {
    fn evaluate(&self, expression: &str) -> Value {
        let value = self.tab.evaluate(expression, true).unwrap_or_else(|e| panic!("{expression}: {e}"));
        value.value.unwrap_or(Value::Null)
    }

    fn key(&self, code: &str, is_down: bool) {
        let kind =
            if is_down { DispatchKeyEventTypeOption::RawKeyDown } else { DispatchKeyEventTypeOption::KeyUp };
        self.tab
            .call_method(Input::DispatchKeyEvent {
                Type: kind,
                code: Some(code.to_owned()),
                key: Some(code.to_owned()),
                modifiers: None,
                timestamp: None,
                text: None,
                unmodified_text: None,
                key_identifier: None,
                windows_virtual_key_code: None,
                native_virtual_key_code: None,
                auto_repeat: None,
                is_keypad: None,
                is_system_key: None,
                location: None,
                commands: None,
            })
            .unwrap();
    }

    fn click(&self, x: f64, y: f64, button: MouseButton) {
        self.point(x, y);
        self.mouse(DispatchMouseEventTypeOption::MousePressed, x, y, Some(button.clone()), None);
        self.mouse(DispatchMouseEventTypeOption::MouseReleased, x, y, Some(button), None);
    }
}
