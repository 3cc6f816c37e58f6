//! The machine's keyboard and pointer, for whoever uses it.
//!
//! What is done with them reaches the guest, or is known not to. QEMU loses it in two ways, without a word: while the guest is held,
//! and when the guest has not taken what was done before. So nothing is done while a capture holds the guest ([`Hands::still`]), and
//! what may not have room any more waits until there is nothing left to take.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use watari_qemu::{Button, Input, Monitor};
use watari_types::MachineName;

use crate::record::Phase;
use crate::status::Board;
use crate::{Error, Result};

/// How long a guest may take. One that has taken nothing by then has no use for keys, or is far from having one, as while it boots.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(1);
/// So many bytes a keyboard remembers until the guest takes them, and a mouse as well: QEMU's `PS2_QUEUE_SIZE`.
const ROOM: u32 = 16;
/// What changes what others do: Shift, Control, Alt and the one beside it, on both sides;
const MODIFIERS: [u32; 8] = [0x2a, 0x36, 0x1d, 0x9d, 0x38, 0xb8, 0xdb, 0xdc];
/// and what drags.
const DRAGGING: [Button; 3] = [Button::Left, Button::Middle, Button::Right];

/// The keyboard and the pointer of one run of a machine.
#[derive(Clone)]
pub(crate) struct Hands {
    name: MachineName,
    monitor: Monitor,
    board: Board,
    touch: Arc<Mutex<Touch>>,
}

/// See [`Hands::still`].
#[must_use]
pub(crate) struct Still<'a> {
    _touch: MutexGuard<'a, Touch>,
}

/// What is done with them by now. Whoever has this is the only one who does anything.
struct Touch {
    keys: BTreeSet<u32>,
    buttons: BTreeSet<Button>,
    /// Whether the guest may believe that something is held which nobody holds: who did was there when it was captured.
    is_stale: bool,
    /// What there may be, in bytes, that the guest has not taken.
    untaken: u32,
    /// Whether the guest has let the time pass that it had for taking something, and has not taken it since.
    is_deaf: bool,
}

impl Hands {
    /// Those of a machine whose guest begins, or goes on (`is_resumed`) from when somebody may have held something.
    pub(crate) fn new(name: MachineName, monitor: Monitor, board: Board, is_resumed: bool) -> Hands {
        let (keys, buttons) = (BTreeSet::new(), BTreeSet::new());
        let touch = Touch { keys, buttons, is_stale: is_resumed, untaken: ROOM, is_deaf: false };
        Hands { name, monitor, board, touch: Arc::new(Mutex::new(touch)) }
    }

    /// Does something with them, once the guest has taken what was done before, or some seconds later.
    ///
    /// # Errors
    /// The guest is held by somebody, or its pointer is of the other kind, or QEMU does not answer; nothing was done.
    pub(crate) fn act(&self, input: Input) -> Result<()> {
        if self.board.phase() != Phase::Running {
            return Err(Error::Untouchable { name: self.name.clone() });
        }
        if std::mem::take(&mut self.touch().is_stale) {
            self.lift(MODIFIERS, DRAGGING);
        }
        self.give(input)
    }

    /// Nothing is done until this is dropped.
    pub(crate) fn still(&self) -> Still<'_> {
        Still { _touch: self.touch() }
    }

    /// Lets go of everything, because nothing can be done for some time.
    pub(crate) fn let_go(&self) {
        let (keys, buttons) = {
            let mut touch = self.touch();
            (std::mem::take(&mut touch.keys), std::mem::take(&mut touch.buttons))
        };
        self.lift(keys, buttons);
    }

    fn touch(&self) -> MutexGuard<'_, Touch> {
        self.touch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lift(&self, keys: impl IntoIterator<Item = u32>, buttons: impl IntoIterator<Item = Button>) {
        let keys = keys.into_iter().map(|qnum| Input::Key { qnum, is_down: false });
        let buttons = buttons.into_iter().map(|button| Input::Button { button, is_down: false });
        for input in keys.chain(buttons) {
            if let Err(error) = self.give(input) {
                tracing::debug!(error = &error as &dyn std::error::Error, "something stays held");
            }
        }
    }

    /// Does something, once the guest has taken what was done before.
    fn give(&self, input: Input) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut touch = self.touch();
            if touch.has_room(input, &self.monitor, deadline)? {
                self.monitor.input(input)?;
                touch.note(input);
                return Ok(());
            }
            drop(touch);
            std::thread::sleep(LOOK);
        }
    }
}

impl Touch {
    /// Whether nothing is lost if that is done, or the guest had until `deadline` for taking what was done before.
    fn has_room(&mut self, input: Input, monitor: &Monitor, deadline: Instant) -> Result<bool> {
        if self.untaken + bytes(input) > ROOM {
            let has_taken = !monitor.has_untaken_input()?;
            self.is_deaf = !has_taken && (self.is_deaf || Instant::now() > deadline);
            if !has_taken && !self.is_deaf {
                return Ok(false);
            }
            self.untaken = 0;
        }
        self.untaken += bytes(input);
        Ok(true)
    }

    fn note(&mut self, input: Input) {
        match input {
            Input::Key { qnum, is_down: true } => drop(self.keys.insert(qnum)),
            Input::Key { qnum, is_down: false } => drop(self.keys.remove(&qnum)),
            Input::Button { button, is_down: true } => drop(self.buttons.insert(button)),
            Input::Button { button, is_down: false } => drop(self.buttons.remove(&button)),
            Input::Point { .. } | Input::Shift { .. } => {}
        }
    }
}

/// What a PC's keyboard or mouse says of it, at most.
fn bytes(input: Input) -> u32 {
    /// Pause and Print screen, which say more than one thing.
    const LONG: [u32; 2] = [0xc6, 0x54];
    match input {
        Input::Key { qnum, .. } if LONG.contains(&qnum) => 8,
        Input::Key { qnum: 0x80.., .. } => 3,
        Input::Key { .. } => 2,
        // A long way of the pointer may be on its way before it.
        Input::Button { .. } => ROOM,
        // How far a pointer was moved adds up, and where it was before does not matter.
        Input::Point { .. } | Input::Shift { .. } => 0,
    }
}
