//! What is said to a viewer and by one, besides pictures: JSON, as `docs/SCREEN.md` has it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use watari_keeper::record::Phase;
use watari_screen::clipboard::{Copied, TooLong};
use watari_screen::layouts;

use super::audience::Control;

/// How things are. Said at first, and when it changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "state")]
pub(super) struct State {
    pub(super) machine: String,
    /// What the machine is doing.
    pub(super) phase: Phase,
    /// Whether it is shown, and what is done here can count.
    pub(super) shown: bool,
    /// Why, or why nothing is seen.
    pub(super) reason: String,
    pub(super) control: Control,
    pub(super) may_control: bool,
    pub(super) viewers: usize,
    /// Whether the guest has an agent that knows of clipboards.
    pub(super) clipboard: bool,
    /// What text can be typed with: a short name, and what people call it.
    pub(super) layouts: &'static BTreeMap<&'static str, &'static str>,
}

/// All layouts.
pub(super) static LAYOUTS: LazyLock<BTreeMap<&'static str, &'static str>> =
    LazyLock::new(|| layouts().iter().map(|layout| (layout.name(), layout.title())).collect());

/// What is said once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said {
    /// Nothing of a text is typed, and why.
    NotTyped { reason: String },
    /// What is copied in the guest, for the one in control.
    Clipboard {
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// It has so many bytes, and was not passed on. That is said of a viewer's own, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        too_long: Option<usize>,
    },
}

impl From<Copied> for Said {
    fn from(copied: Copied) -> Said {
        match copied {
            Copied::Text(text) => Said::Clipboard { text: Some(text.to_string()), too_long: None },
            Copied::TooLong(bytes) => TooLong(bytes).into(),
        }
    }
}

impl From<TooLong> for Said {
    fn from(TooLong(bytes): TooLong) -> Said {
        Said::Clipboard { text: None, too_long: Some(bytes) }
    }
}

/// What a viewer says.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Heard {
    /// It shows an update, and so all before that.
    Shown { number: u32 },
    /// Whether anybody can see it.
    Visible { visible: bool },
    /// It wants to be in control.
    Take,
    /// A key, by its place on the keyboard.
    Key { code: String, down: bool },
    /// Types a text on a keyboard with that layout.
    Type { text: String, layout: String },
    /// Types no further.
    StopTyping,
    /// Lets go of all keys and buttons.
    Release,
    /// Where the pointer is, in pixels of the screen, and which buttons are held: 1 left, 2 right, 4 middle, 8 and 16 at the side.
    Pointer { x: u32, y: u32, buttons: u8 },
    /// How far it was moved.
    Moved { right: i32, down: i32, buttons: u8 },
    /// Steps of the wheel, away from the hand.
    Wheel { up: i8 },
    /// What the guest is to paste.
    Clipboard { text: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_with_its_layout() {
        let heard: Heard = serde_json::from_str(r#"{"type":"type","text":"a\né","layout":"de"}"#).unwrap();
        assert_eq!(heard, Heard::Type { text: "a\né".to_owned(), layout: "de".to_owned() });
        assert!(serde_json::from_str::<Heard>(r#"{"type":"type","text":"a"}"#).is_err());
        assert_eq!(LAYOUTS.get("de"), Some(&"German"));
    }
}
