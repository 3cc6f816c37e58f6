//! Keys by their place on the keyboard, as browsers name them and as QEMU numbers them.
//!
//! Browsers say `KeyQ` for the key right of Tab whatever is printed on it
//! ([UI Events `code`](https://www.w3.org/TR/uievents-code/)). QEMU wants the scan code that a PC's keyboard sends for it (set 1, plus
//! 0x80 for those that begin with e0; [`qnum`](https://gitlab.com/keycodemap/keycodemapdb)). What the key means is the guest's to
//! decide, by the layout that it has.

/// QEMU's number of the key that browsers call `code`, if a PC's keyboard has one like it.
pub fn qnum(code: &str) -> Option<u32> {
    let row = |first: u32, keys: &[&str]| (first..).zip(keys).find(|(_, key)| **key == code).map(|(n, _)| n);
    if code.is_empty() {
        return None;
    }
    ROWS.iter().find_map(|(first, keys)| row(*first, keys))
}

/// Keys whose numbers follow each other, from the first one on. An empty name is a number that no key has.
const ROWS: &[(u32, &[&str])] = &[
    (0x01, &["Escape"]),
    (
        0x02,
        &["Digit1", "Digit2", "Digit3", "Digit4", "Digit5", "Digit6", "Digit7", "Digit8", "Digit9", "Digit0"],
    ),
    (0x0c, &["Minus", "Equal", "Backspace", "Tab"]),
    (0x10, &["KeyQ", "KeyW", "KeyE", "KeyR", "KeyT", "KeyY", "KeyU", "KeyI", "KeyO", "KeyP"]),
    (0x1a, &["BracketLeft", "BracketRight", "Enter", "ControlLeft"]),
    (0x1e, &["KeyA", "KeyS", "KeyD", "KeyF", "KeyG", "KeyH", "KeyJ", "KeyK", "KeyL"]),
    (0x27, &["Semicolon", "Quote", "Backquote", "ShiftLeft", "Backslash"]),
    (0x2c, &["KeyZ", "KeyX", "KeyC", "KeyV", "KeyB", "KeyN", "KeyM"]),
    (0x33, &["Comma", "Period", "Slash", "ShiftRight", "NumpadMultiply", "AltLeft", "Space", "CapsLock"]),
    (0x3b, &["F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "NumLock", "ScrollLock"]),
    (
        0x47,
        &["Numpad7", "Numpad8", "Numpad9", "NumpadSubtract", "Numpad4", "Numpad5", "Numpad6", "NumpadAdd"],
    ),
    (
        0x4f,
        &["Numpad1", "Numpad2", "Numpad3", "Numpad0", "NumpadDecimal", "PrintScreen", "", "IntlBackslash"],
    ),
    (0x57, &["F11", "F12", "NumpadEqual", "", "", "", "F13", "F14", "F15"]),
    (0x70, &["KanaMode", "Lang2", "Lang1", "IntlRo"]),
    (0x77, &["Lang4", "Lang3", "Convert", "", "NonConvert", "", "IntlYen", "NumpadComma"]),
    (0x90, &["MediaTrackPrevious", "", "", "", "", "", "", "", "", "MediaTrackNext"]),
    (
        0x9c,
        &["NumpadEnter", "ControlRight", "", "", "AudioVolumeMute", "", "MediaPlayPause", "", "MediaStop"],
    ),
    (0xae, &["AudioVolumeDown", "", "AudioVolumeUp"]),
    (0xb5, &["NumpadDivide", "", "", "AltRight"]),
    (0xc6, &["Pause", "Home", "ArrowUp", "PageUp", "", "ArrowLeft", "", "ArrowRight", "", "End"]),
    (0xd0, &["ArrowDown", "PageDown", "Insert", "Delete"]),
    (0xdb, &["MetaLeft", "MetaRight", "ContextMenu", "Power", "Sleep", "", "", "", "WakeUp"]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_where_a_pc_has_them() {
        for (code, number) in [
            ("Escape", 0x01),
            ("Digit0", 0x0b),
            ("KeyP", 0x19),
            ("Enter", 0x1c),
            ("KeyL", 0x26),
            ("Backslash", 0x2b),
            ("KeyM", 0x32),
            ("CapsLock", 0x3a),
            ("NumLock", 0x45),
            ("Numpad0", 0x52),
            ("IntlBackslash", 0x56),
            ("F12", 0x58),
            ("IntlRo", 0x73),
            ("Convert", 0x79),
            ("NonConvert", 0x7b),
            ("IntlYen", 0x7d),
            ("AltRight", 0xb8),
            ("ArrowRight", 0xcd),
            ("Delete", 0xd3),
            ("ContextMenu", 0xdd),
        ] {
            assert_eq!(qnum(code), Some(number), "{code}");
        }
        assert_eq!((qnum(""), qnum("KeyÄ"), qnum("Fn")), (None, None, None));
    }

    #[test]
    fn no_two_keys_are_one() {
        let mut numbers = HashSet::new();
        for (first, keys) in ROWS {
            for (number, key) in (*first..).zip(*keys).filter(|(_, key)| !key.is_empty()) {
                assert!(numbers.insert(number), "{key}");
                assert_eq!(qnum(key), Some(number));
            }
        }
        assert_eq!(
            numbers.len(),
            ROWS.iter().flat_map(|(_, keys)| *keys).filter(|key| !key.is_empty()).count()
        );
    }
}
