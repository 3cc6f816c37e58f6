//! The machine's keyboard and pointer, for whoever uses it.
//!
//! What is done with them reaches the guest, or is known not to. QEMU loses it in two ways, without a word: while the guest is held,
//! and when the guest has not taken what was done before. So nothing is done while a capture holds the guest ([`Hands::still`]), and
//! keys and buttons wait until there is nothing left to take.

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
    /// Whether the guest has let the time pass that it had for taking something, and has not taken it since.
    is_deaf: bool,
}

impl Hands {
    /// Those of a machine whose guest begins, or goes on (`is_resumed`) from when somebody may have held something.
    pub(crate) fn new(name: MachineName, monitor: Monitor, board: Board, is_resumed: bool) -> Hands {
        let (keys, buttons) = (BTreeSet::new(), BTreeSet::new());
        let touch = Touch { keys, buttons, is_stale: is_resumed, is_deaf: false };
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
        // How far a pointer was moved adds up, and where it was before does not matter.
        if matches!(input, Input::Key { .. } | Input::Button { .. }) {
            self.wait()?;
        }
        let mut touch = self.touch();
        self.monitor.input(input)?;
        touch.note(input);
        Ok(())
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
            let lifted = self.wait().and_then(|()| Ok(self.monitor.input(input)?));
            if let Err(error) = lifted {
                tracing::debug!(error = &error as &dyn std::error::Error, "something stays held");
            }
        }
    }

    /// Waits until the guest has taken what was done.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.monitor.has_untaken_input()? {
            let is_over = Instant::now() > deadline;
            let mut touch = self.touch();
            touch.is_deaf |= is_over;
            if touch.is_deaf {
                return Ok(());
            }
            drop(touch);
            std::thread::sleep(LOOK);
        }
        self.touch().is_deaf = false;
        Ok(())
    }
}

impl Touch {
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
