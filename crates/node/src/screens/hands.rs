//! The one keyboard and the one pointer that a machine has: what is held of them, so that it can be let go of, and what is still to be
//! typed.
//!
//! Text is typed a stroke at a time, as fast as a machine takes it; keys that are pressed meanwhile come after it.

use std::collections::{BTreeSet, VecDeque};

use watari_qemu::{Button, Input};
use watari_screen::{CannotType, Layout, Stroke, qnum, strokes};

use super::Shown;
use super::message::Heard;
use crate::Result;

/// Buttons as browsers count them, from the lowest bit.
const BUTTONS: [Button; 5] = [Button::Left, Button::Right, Button::Middle, Button::Side, Button::Extra];
/// Nobody turns a wheel further at once.
const MOST_STEPS: i8 = 16;

/// So much is remembered of what is to be typed, in strokes: it takes twenty minutes.
const MOST_STROKES: usize = 120_000;
/// No text is longer, in bytes: its strokes are many more.
const MOST_TEXT: usize = 16 << 10;
/// Keys that change what others type: Shift, Control, Alt and the one beside it, on both sides.
const MODIFIERS: [u32; 8] = [0x2a, 0x36, 0x1d, 0x9d, 0x38, 0xb8, 0xdb, 0xdc];

/// Why a text is not typed. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTyped {
    #[error("there is no layout {0:?}")]
    NoLayout(String),
    #[error(transparent)]
    Cannot(#[from] CannotType),
    #[error("it is too long, or too much is being typed already")]
    TooMuch,
}

/// What is held, what is still to be typed, and where the pointer is.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    keys: BTreeSet<u32>,
    waiting: VecDeque<Stroke>,
    buttons: u8,
    at: (u32, u32),
}

impl Hands {
    /// Does what somebody in control does. Keys that no keyboard of a PC has do nothing.
    pub(super) async fn act(&mut self, shown: &Shown, heard: &Heard) -> Result<()> {
        match *heard {
            Heard::Key { ref code, down } => match qnum(code) {
                Some(key) if self.waiting.is_empty() => self.key(shown, key, down).await,
                Some(key) => {
                    self.wait(Stroke { key, is_down: down });
                    Ok(())
                }
                None => Ok(()),
            },
            Heard::Pointer { x, y, buttons } => {
                self.point(shown, x, y).await?;
                self.press(shown, buttons).await
            }
            Heard::Moved { right, down, buttons } => {
                self.shift(shown, right, down).await?;
                self.press(shown, buttons).await
            }
            Heard::Wheel { up } => wheel(shown, up).await,
            Heard::Release if self.waiting.is_empty() => self.release(shown).await,
            Heard::Release => {
                self.release_later();
                self.press(shown, 0).await
            }
            Heard::StopTyping => self.release(shown).await,
            Heard::Shown { .. } | Heard::Visible { .. } | Heard::Take => Ok(()),
            Heard::Type { .. } | Heard::Clipboard { .. } => Ok(()),
        }
    }

    /// Remembers a text that is to be typed, after what is there already. Modifiers that are held by then are let go of.
    pub(super) fn plan(&mut self, text: &str, layout: &str) -> Result<(), NotTyped> {
        let layout = Layout::named(layout).ok_or_else(|| NotTyped::NoLayout(layout.to_owned()))?;
        if text.len() > MOST_TEXT {
            return Err(NotTyped::TooMuch);
        }
        let strokes = strokes(text, layout)?;
        if self.waiting.len() + MODIFIERS.len() + strokes.len() > MOST_STROKES {
            return Err(NotTyped::TooMuch);
        }
        self.waiting.extend(MODIFIERS.map(|key| Stroke { key, is_down: false }));
        self.waiting.extend(strokes);
        Ok(())
    }

    /// Does the next stroke of what is to be typed. Returns whether there was one. After an error it is still to be done.
    pub(super) async fn stroke(&mut self, shown: &Shown) -> Result<bool> {
        while let Some(Stroke { key, is_down }) = self.waiting.front().copied() {
            let counts = is_down || self.keys.contains(&key);
            if counts {
                self.key(shown, key, is_down).await?;
            }
            self.waiting.pop_front();
            if counts {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Types no further.
    pub(super) fn stop_typing(&mut self) {
        self.waiting.clear();
    }

    /// Lets go of everything, and types no further.
    pub(super) async fn release(&mut self, shown: &Shown) -> Result<()> {
        self.stop_typing();
        while let Some(key) = self.keys.pop_first() {
            shown.act(Input::Key { qnum: key, is_down: false }).await?;
        }
        self.press(shown, 0).await
    }

    /// Lets go of all keys once everything is typed: whoever looks at another page meanwhile wants that it is.
    fn release_later(&mut self) {
        let pressed = self.waiting.iter().filter(|stroke| stroke.is_down).map(|stroke| stroke.key);
        let keys: BTreeSet<u32> = pressed.chain(self.keys.iter().copied()).collect();
        keys.into_iter().for_each(|key| self.wait(Stroke { key, is_down: false }));
    }

    fn wait(&mut self, stroke: Stroke) {
        if self.waiting.len() < MOST_STROKES {
            self.waiting.push_back(stroke);
        }
    }

    /// Another machine's run: nothing is held there.
    pub(super) fn forget(&mut self) {
        *self = Hands::default();
    }

    async fn key(&mut self, shown: &Shown, key: u32, is_down: bool) -> Result<()> {
        // Held keys repeat. What was not held cannot be let go of.
        if !is_down && !self.keys.contains(&key) {
            return Ok(());
        }
        shown.act(Input::Key { qnum: key, is_down }).await?;
        if is_down {
            self.keys.insert(key)
        } else {
            self.keys.remove(&key)
        };
        Ok(())
    }

    /// To a machine whose pointer only knows how far it was moved, that is said.
    async fn point(&mut self, shown: &Shown, x: u32, y: u32) -> Result<()> {
        if (x, y) == self.at {
            return Ok(());
        }
        let (from_x, from_y) = std::mem::replace(&mut self.at, (x, y));
        if shown.act(Input::point((x, y), shown.size())).await.is_ok() {
            return Ok(());
        }
        let way = |from: u32, to: u32| (i64::from(to) - i64::from(from)) as i32;
        shown.act(Input::Shift { right: way(from_x, x), down: way(from_y, y) }).await
    }

    /// And to one whose pointer only knows where it is, where that is then.
    async fn shift(&mut self, shown: &Shown, right: i32, down: i32) -> Result<()> {
        if shown.act(Input::Shift { right, down }).await.is_ok() {
            return Ok(());
        }
        self.at = moved(self.at, (right, down), shown.size());
        shown.act(Input::point(self.at, shown.size())).await
    }

    async fn press(&mut self, shown: &Shown, buttons: u8) -> Result<()> {
        for (index, button) in BUTTONS.into_iter().enumerate() {
            let bit = 1 << index;
            if (self.buttons ^ buttons) & bit != 0 {
                shown.act(Input::Button { button, is_down: buttons & bit != 0 }).await?;
                self.buttons ^= bit;
            }
        }
        Ok(())
    }
}

/// Where a pointer is that was moved, on a screen of that size.
fn moved(at: (u32, u32), by: (i32, i32), size: (u32, u32)) -> (u32, u32) {
    let along = |at: u32, by: i32, size: u32| at.saturating_add_signed(by).min(size.saturating_sub(1));
    (along(at.0, by.0, size.0), along(at.1, by.1, size.1))
}

async fn wheel(shown: &Shown, up: i8) -> Result<()> {
    let button = if up > 0 { Button::WheelUp } else { Button::WheelDown };
    for _ in 0..up.unsigned_abs().min(MOST_STEPS.unsigned_abs()) {
        for is_down in [true, false] {
            shown.act(Input::Button { button, is_down }).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_is_typed_whole_or_not_at_all() {
        let mut hands = Hands::default();
        assert!(matches!(hands.plan(&"a".repeat(MOST_TEXT + 1), "us"), Err(NotTyped::TooMuch)));
        assert!(matches!(hands.plan("a", "xx"), Err(NotTyped::NoLayout(name)) if name == "xx"));
        assert!(matches!(hands.plan("aé", "us"), Err(NotTyped::Cannot(cannot)) if cannot.characters == "é"));
        assert!(hands.waiting.is_empty());
        let mut texts = 0;
        while hands.plan(&"a".repeat(16 << 10), "us").is_ok() {
            texts += 1;
        }
        assert_eq!((texts, hands.waiting.len()), (3, 3 * (2 * (16 << 10) + MODIFIERS.len())));
        assert!(matches!(hands.plan(&"a".repeat(16 << 10), "us"), Err(NotTyped::TooMuch)));
    }

    #[test]
    fn a_pointer_that_is_moved_stays_on_the_screen() {
        assert_eq!(moved((10, 10), (5, -3), (640, 480)), (15, 7));
        assert_eq!(moved((10, 10), (-50, 9000), (640, 480)), (0, 479));
        assert_eq!(moved((0, 0), (i32::MAX, i32::MIN), (1, 1)), (0, 0));
    }

    #[test]
    fn modifiers_are_let_go_of_before_a_text_and_keys_after_it() {
        let key = |code| qnum(code).unwrap();
        let mut hands = Hands { keys: BTreeSet::from([key("ControlLeft"), key("KeyV")]), ..Hands::default() };
        hands.plan("a", "us").unwrap();
        hands.wait(Stroke { key: key("KeyB"), is_down: true });
        hands.release_later();
        let strokes: Vec<(u32, bool)> =
            hands.waiting.iter().map(|stroke| (stroke.key, stroke.is_down)).collect();
        assert!(strokes.starts_with(&MODIFIERS.map(|key| (key, false))));
        let a = [(key("KeyA"), true), (key("KeyA"), false), (key("KeyB"), true)];
        assert_eq!(strokes[MODIFIERS.len()..][..3], a);
        for code in ["ControlLeft", "KeyV", "KeyB"] {
            assert!(strokes[MODIFIERS.len() + 3..].contains(&(key(code), false)), "{code}");
        }
    }
}
