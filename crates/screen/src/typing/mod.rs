//! Text, as the keys that type it.
//!
//! What a key types is the guest's to decide, by the layout that it has: whoever types text must say which one that is. What comes
//! out is right if the guest has that one, and neither Caps Lock nor an input method of its own is on.

mod layout;

use std::collections::BTreeSet;
use std::time::Duration;

use unicode_normalization::UnicodeNormalization;

pub use layout::{Layout, layouts};

use layout::Press;

const TAB: u32 = 0x0f;
const ENTER: u32 = 0x1c;
const SHIFT: u32 = 0x2a;
const ALT_GR: u32 = 0xb8;

/// How long whoever sends strokes waits after each, even if the guest has taken it: what it does with a key may take longer. QEMU's own
/// VNC server waits as long ([`key-delay-ms`](https://www.qemu.org/docs/master/system/invocation.html)).
pub const PACE: Duration = Duration::from_millis(10);

/// A key that is pressed, or let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// Its place on the keyboard, as QEMU numbers them.
    pub key: u32,
    /// Whether it is pressed.
    pub is_down: bool,
}

/// A text has characters that no keys of the layout type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a keyboard with the layout {layout:?} does not type {characters:?}")]
pub struct CannotType {
    /// The layout's name.
    pub layout: &'static str,
    /// Each such character once, in the order of their numbers.
    pub characters: String,
}

/// The strokes that type `text` on a keyboard with that layout, of which nothing is held before or afterwards. Lines end with Enter,
/// and the last one too if it ends. There are at most twelve strokes for a character.
///
/// They are sent one every [`PACE`].
///
/// # Errors
/// [`CannotType`], with all of what cannot be typed.
pub fn strokes(text: &str, layout: &Layout) -> Result<Vec<Stroke>, CannotType> {
    let mut fingers = Fingers::default();
    let mut missing = BTreeSet::new();
    let mut last = None;
    for character in text.nfc() {
        let is_second_half = last.replace(character) == Some('\r') && character == '\n';
        match character {
            '\n' if is_second_half => {}
            '\n' | '\r' => fingers.press(plain(ENTER)),
            '\t' => fingers.press(plain(TAB)),
            _ => match layout.presses(character) {
                Some(presses) => presses.into_iter().for_each(|press| fingers.press(press)),
                None => drop(missing.insert(character)),
            },
        }
    }
    fingers.hold(false, false);
    if missing.is_empty() {
        Ok(fingers.strokes)
    } else {
        Err(CannotType { layout: layout.name(), characters: missing.into_iter().collect() })
    }
}

fn plain(key: u32) -> Press {
    Press { key, shift: false, alt_gr: false }
}

/// Shift and AltGr stay down for as long as they are needed.
#[derive(Default)]
struct Fingers {
    shift: bool,
    alt_gr: bool,
    strokes: Vec<Stroke>,
}

impl Fingers {
    fn press(&mut self, press: Press) {
        self.hold(press.shift, press.alt_gr);
        self.strokes.extend([true, false].map(|is_down| Stroke { key: press.key, is_down }));
    }

    fn hold(&mut self, shift: bool, alt_gr: bool) {
        for (held, wanted, key) in [(&mut self.shift, shift, SHIFT), (&mut self.alt_gr, alt_gr, ALT_GR)] {
            if std::mem::replace(held, wanted) != wanted {
                self.strokes.push(Stroke { key, is_down: wanted });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qnum;

    fn typed(text: &str, layout: &str) -> Result<String, CannotType> {
        let strokes = strokes(text, Layout::named(layout).unwrap())?;
        Ok(strokes.iter().map(say).collect::<Vec<_>>().join(" "))
    }

    fn say(stroke: &Stroke) -> String {
        let codes =
            ["Enter", "Tab", "Space", "ShiftLeft", "AltRight", "KeyA", "KeyB", "KeyE", "KeyQ", "Digit2"];
        let codes = codes.into_iter().chain(["Equal", "BracketRight", "Backquote", "Quote", "KeyN"]);
        let code = codes.into_iter().find(|code| qnum(code) == Some(stroke.key)).unwrap_or("another");
        format!("{}{code}", if stroke.is_down { '+' } else { '-' })
    }

    #[test]
    fn shift_and_alt_gr_are_held_for_as_long_as_they_are_needed() {
        assert_eq!(
            typed("aABa", "de").unwrap(),
            "+KeyA -KeyA +ShiftLeft +KeyA -KeyA +KeyB -KeyB -ShiftLeft +KeyA -KeyA"
        );
        assert_eq!(typed("@", "de").unwrap(), "+AltRight +KeyQ -KeyQ -AltRight");
        assert_eq!(typed("@", "us").unwrap(), "+ShiftLeft +Digit2 -Digit2 -ShiftLeft");
        assert_eq!(typed("", "de").unwrap(), "");
    }

    #[test]
    fn a_line_ends_with_one_enter() {
        let enter = "+Enter -Enter";
        for text in ["\n", "\r", "\r\n"] {
            assert_eq!(typed(text, "us").unwrap(), enter, "{text:?}");
        }
        assert_eq!(typed("\n\r\n\n", "us").unwrap(), [enter; 3].join(" "));
        assert_eq!(typed("A\t", "us").unwrap(), "+ShiftLeft +KeyA -KeyA -ShiftLeft +Tab -Tab");
    }

    #[test]
    fn dead_keys_make_letters_and_stand_alone() {
        assert_eq!(typed("é", "de").unwrap(), "+Equal -Equal +KeyE -KeyE");
        assert_eq!(typed("e\u{301}", "de").unwrap(), typed("é", "de").unwrap(), "a mark of its own");
        assert_eq!(typed("è", "de").unwrap(), "+ShiftLeft +Equal -Equal -ShiftLeft +KeyE -KeyE");
        assert_eq!(typed("^", "de").unwrap(), "+Backquote -Backquote +Space -Space");
        assert_eq!(typed("'", "us-intl").unwrap(), "+Quote -Quote +Space -Space");
        assert_eq!(typed("ñ", "us-intl").unwrap(), "+ShiftLeft +Backquote -Backquote -ShiftLeft +KeyN -KeyN");
        assert_eq!(typed("é", "fr").unwrap(), "+Digit2 -Digit2", "it has its own key");
        assert_eq!(typed("~", "de").unwrap(), "+AltRight +BracketRight -BracketRight -AltRight");
    }

    #[test]
    fn all_that_cannot_be_typed_is_said() {
        let error = typed("a漢é\u{1b}é\u{7f}b字", "us").unwrap_err();
        assert_eq!(error, CannotType { layout: "us", characters: "\u{1b}\u{7f}é字漢".to_owned() });
        assert_eq!(
            typed("´", "de").unwrap_err().characters,
            "´",
            "systems differ in what the dead key types"
        );
        assert_eq!(typed("ǘ", "de").unwrap_err().characters, "ǘ", "two marks");
    }

    #[test]
    fn nothing_is_held_afterwards_whatever_was_typed() {
        for layout in layouts() {
            for character in (' '..='\u{2fff}').filter(|character| layout.presses(*character).is_some()) {
                let text = format!("{character}{character}");
                let Ok(strokes) = strokes(&text, layout) else { continue };
                let mut held = BTreeSet::new();
                for Stroke { key, is_down } in &strokes {
                    assert!(
                        if *is_down { held.insert(*key) } else { held.remove(key) },
                        "{text} {}",
                        layout.name()
                    );
                }
                assert!(held.is_empty() && strokes.len() <= 24, "{text} {}", layout.name());
            }
        }
    }
}
