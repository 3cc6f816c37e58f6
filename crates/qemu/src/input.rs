//! A machine's keyboard and pointer: what is done with them, and whether the guest takes it.
//!
//! QEMU's own displays take keys as well, and forget what comes while the guest is held without a word; the monitor refuses it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::machine::{QUICK, bad_answer};
use crate::{Error, Monitor};

/// Something that is done with a keyboard or a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A key is pressed, or let go of: by its place on the keyboard, as
    /// [QEMU numbers them](https://gitlab.com/keycodemap/keycodemapdb) (`qnum`).
    Key {
        /// Its place.
        qnum: u32,
        /// Whether it is pressed.
        is_down: bool,
    },
    /// A button of the pointer is pressed, or let go of.
    Button {
        /// Which one.
        button: Button,
        /// Whether it is pressed.
        is_down: bool,
    },
    /// The pointer is put somewhere.
    Point {
        /// How far from the left edge, [`Input::EDGE`] being the right one.
        x: u16,
        /// How far from the upper edge, [`Input::EDGE`] being the lower one.
        y: u16,
    },
    /// The pointer is moved.
    Shift {
        /// By so many pixels,
        right: i32,
        /// and so many.
        down: i32,
    },
}

impl Input {
    /// How far it is from one edge of a screen to the other.
    pub const EDGE: u16 = 0x7fff;

    /// That the pointer is put on a pixel of a screen of `width` × `height` of them, or the nearest there is.
    pub fn point((x, y): (u32, u32), (width, height): (u32, u32)) -> Input {
        let along = |at: u32, length: u32| {
            let (at, length) = (at.min(length.saturating_sub(1)), length.max(1));
            (u64::from(at) * u64::from(Input::EDGE) / u64::from(length)) as u16
        };
        Input::Point { x: along(x, width), y: along(y, height) }
    }
}

/// A pointer's button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Button {
    /// The left one.
    Left,
    /// The middle one.
    Middle,
    /// The right one.
    Right,
    /// One step of the wheel, away from the hand.
    WheelUp,
    /// One step of the wheel, towards the hand.
    WheelDown,
    /// The one at the side.
    Side,
    /// And the other.
    Extra,
}

impl Monitor {
    /// Does something with the machine's keyboard or pointer. What its devices have no room for until the guest takes it is lost:
    /// see [`Monitor::has_untaken_input`].
    ///
    /// # Errors
    /// Those of [`Monitor::execute`]; [`Error::Refused`], and nothing was done, if the guest is held, or the machine's pointer is
    /// of the other kind.
    pub fn input(&self, input: Input) -> Result<(), Error> {
        let refused = |detail: &str| Error::Refused {
            peer: "QEMU",
            command: String::from("input-send-event"),
            detail: detail.to_owned(),
        };
        match input {
            Input::Point { .. } if !self.points()? => return Err(refused("the pointer can only be moved")),
            Input::Shift { .. } if self.points()? => {
                return Err(refused("the pointer can only be put somewhere"));
            }
            _ => {}
        }
        self.execute("input-send-event", json!({"events": events(input)}), QUICK).map(drop)
    }

    /// Whether the pointer that the guest uses knows where it is, not how far it was moved.
    fn points(&self) -> Result<bool, Error> {
        let answer = self.execute("query-mice", json!({}), QUICK)?;
        let mice = answer.as_array().ok_or_else(|| bad_answer("query-mice", &answer))?;
        Ok(mice.iter().any(|mouse| mouse["current"] == true && mouse["absolute"] == true))
    }

    /// Whether there is something that a PC's keyboard or mouse has said, or answered to a driver that sets it up, and the guest has
    /// not taken: of keys it has room for 16 bytes. Asks the keyboard's controller as the guest does, which changes nothing; a USB device is not asked.
    ///
    /// # Errors
    /// Those of [`Monitor::execute`], and [`Error::BadAnswer`].
    pub fn has_untaken_input(&self) -> Result<bool, Error> {
        /// The controller's status, and its bit for a byte that is to be read.
        const STATUS: &str = "i /b 0x64";
        const IS_FULL: u8 = 1;
        let answer = self.execute("human-monitor-command", json!({"command-line": STATUS}), QUICK)?;
        let status = answer.as_str().and_then(|text| text.trim().rsplit_once("= 0x"));
        let status = status.and_then(|(_, status)| u8::from_str_radix(status, 16).ok());
        status.map(|status| status & IS_FULL != 0).ok_or_else(|| bad_answer(STATUS, &answer))
    }
}

/// In QEMU's words.
fn events(input: Input) -> Value {
    let along =
        |kind: &str, axis: &str, value: i32| json!({"type": kind, "data": {"axis": axis, "value": value}});
    match input {
        Input::Key { qnum, is_down } => {
            json!([{"type": "key", "data": {"down": is_down, "key": {"type": "number", "data": qnum}}}])
        }
        Input::Button { button, is_down } => {
            json!([{"type": "btn", "data": {"down": is_down, "button": button}}])
        }
        Input::Point { x, y } => json!([along("abs", "x", x.into()), along("abs", "y", y.into())]),
        Input::Shift { right, down } => json!([along("rel", "x", right), along("rel", "y", down)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_put_on_a_pixel_or_the_nearest() {
        let at = |pixel| Input::point(pixel, (1280, 720));
        assert_eq!(at((0, 0)), Input::Point { x: 0, y: 0 });
        assert_eq!(at((640, 360)), Input::Point { x: 16383, y: 16383 });
        assert_eq!(at((9999, 719)), Input::Point { x: 32741, y: 32721 });
        assert_eq!(at((1279, u32::MAX)), at((1280, 719)));
        assert_eq!(Input::point((5, 5), (0, 0)), Input::Point { x: 0, y: 0 });
    }
}
