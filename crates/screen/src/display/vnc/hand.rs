//! The keyboard and the pointer, in RFB's messages.

use super::Error;
use crate::display::Button;

/// What a relative pointer's position is when it has not moved.
const STILL: u16 = 0x7fff;

/// What QEMU's VNC server knows of the pointer: each message says all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    /// Whether the machine's pointer knows where it is, or how far it was moved.
    pub(super) is_absolute: bool,
    /// The buttons that are held, from the lowest bit as QEMU numbers them.
    buttons: u8,
    at: (u16, u16),
}

/// A key, in QEMU's own message: by its place on the keyboard, numbered as we do.
pub(super) fn key(qnum: u32, is_down: bool) -> Vec<u8> {
    const QEMU: u8 = 255;
    const KEY: u8 = 0;
    let mut message = vec![QEMU, KEY, 0, u8::from(is_down), 0, 0, 0, 0];
    message.extend(qnum.to_be_bytes());
    message
}

/// Has QEMU look at once, and often, at what the guest shows, and does nothing to the guest: what QEMU takes as input sets its
/// timer back, and it lets go of no key that is not held.
pub(super) fn nudge() -> Vec<u8> {
    const NO_KEY: u32 = 0;
    key(NO_KEY, false)
}

impl Hand {
    /// That holds nothing, in the upper left corner.
    pub(super) fn new(is_absolute: bool) -> Hand {
        Hand { is_absolute, buttons: 0, at: (0, 0) }
    }

    /// Holds a button, or lets go of it. QEMU's VNC server knows none of those at the side: then nothing happens.
    pub(super) fn button(&mut self, button: Button, is_down: bool) -> Vec<u8> {
        let bit = match button {
            Button::Side | Button::Extra => 0,
            button => 1 << button as u32,
        };
        self.buttons = if is_down { self.buttons | bit } else { self.buttons & !bit };
        self.pointer(if self.is_absolute { self.at } else { (STILL, STILL) })
    }

    pub(super) fn point(&mut self, x: u16, y: u16) -> Result<Vec<u8>, Error> {
        if !self.is_absolute {
            return Err(Error::Pointer);
        }
        self.at = (x, y);
        Ok(self.pointer(self.at))
    }

    /// As far as a message can say: from one edge of the largest screen to the other, and further.
    pub(super) fn shift(&self, right: i32, down: i32) -> Result<Vec<u8>, Error> {
        if self.is_absolute {
            return Err(Error::Pointer);
        }
        let way = |pixels: i32| pixels.saturating_add(STILL.into()).clamp(0, u16::MAX.into()) as u16;
        Ok(self.pointer((way(right), way(down))))
    }

    fn pointer(&self, (x, y): (u16, u16)) -> Vec<u8> {
        const POINTER: u8 = 5;
        let mut message = vec![POINTER, self.buttons];
        message.extend(x.to_be_bytes());
        message.extend(y.to_be_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_said_by_their_place() {
        assert_eq!(key(0xc8, true), [255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xc8]);
        assert_eq!(nudge(), [255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_pointer_is_where_it_was_put() {
        let mut hand = Hand::new(true);
        assert_eq!(hand.point(258, 5).unwrap(), [5, 0, 1, 2, 0, 5]);
        assert_eq!(hand.button(Button::Right, true), [5, 4, 1, 2, 0, 5]);
        assert_eq!(hand.button(Button::WheelUp, true), [5, 12, 1, 2, 0, 5]);
        assert_eq!(hand.button(Button::Side, true), [5, 12, 1, 2, 0, 5]);
        assert_eq!(hand.button(Button::Right, false), [5, 8, 1, 2, 0, 5]);
        assert!(hand.shift(1, 1).is_err());
    }

    #[test]
    fn a_pointer_that_is_moved_stays_where_a_button_is_pressed() {
        let mut hand = Hand::new(false);
        assert_eq!(hand.shift(1, -2).unwrap(), [5, 0, 0x80, 0, 0x7f, 0xfd]);
        assert_eq!(hand.button(Button::Left, true), [5, 1, 0x7f, 0xff, 0x7f, 0xff]);
        assert_eq!(hand.shift(i32::MIN, i32::MAX).unwrap(), [5, 1, 0, 0, 0xff, 0xff]);
        assert!(hand.point(0, 0).is_err());
    }
}
