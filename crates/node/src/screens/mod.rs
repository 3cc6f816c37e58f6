//! What this node's machines show, for all who watch.
//!
//! ```text
//!             ┌──────────────────────── Stage: one for each machine that is watched ───────────────────────┐
//!  QEMU ─────►│ Shown: what it shows, until that QEMU ends     Audience: who watches, who is in control    │
//!     keeper ◄│ Hands: the keys and buttons that are held      Clipboard: what is copied and pasted        │
//!             └────────▲────────────────────────────────────────────────────────▲──────────────────────────┘
//!                      └─────────────── Session: one for each viewer ───────────┘
//! ```
//!
//! A stage outlives what is shown on it: viewers stay where they are while a machine is restored. QEMU is asked for its screen
//! when the first of them comes, and tells nobody any more when the last one is gone.

mod audience;
mod hands;
mod message;
mod session;
mod touch;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use watari_keeper::client;
use watari_keeper::home::MachineHome;
use watari_qemu::{DESKTOP_SOCKET, Display as Kind, Input, VNC_SOCKET};
use watari_screen::clipboard::Clipboard;
use watari_screen::{Display, Picture, Studio, thumbnail};
use watari_types::MachineName;

pub(crate) use self::audience::Audience;
pub(crate) use self::session::attend;

use self::hands::Hands;
use self::touch::Touch;
use crate::node::{Node, hold};
use crate::{Error, Result};

/// The width of a small picture, in pixels.
const SMALL: u32 = 320;
/// After a small picture was asked for, the screen stays open for so long: it will be asked for again.
const LINGER: Duration = Duration::from_secs(5);

/// The machines that are watched.
#[derive(Default)]
pub(crate) struct Screens(Mutex<HashMap<MachineName, Weak<Stage>>>);

/// One machine that is watched, whether it runs or not.
pub(crate) struct Stage {
    machine: MachineName,
    shown: tokio::sync::Mutex<Weak<Shown>>,
    clipboard: Mutex<Weak<Clipboard>>,
    pub(crate) audience: Audience,
    pub(crate) hands: tokio::sync::Mutex<Hands>,
}

/// What one QEMU shows.
pub(crate) struct Shown {
    pub(crate) display: Display,
    pub(crate) studio: Studio,
    touch: Touch,
}

impl Shown {
    /// Does something with the machine's keyboard or pointer.
    ///
    /// # Errors
    /// Those of [`Touch::act`].
    async fn act(&self, input: Input) -> Result<()> {
        self.touch.act(input).await?;
        self.display.expect_change();
        Ok(())
    }

    /// The width and the height of what it shows, in pixels.
    fn size(&self) -> (u32, u32) {
        let area = self.display.screen().see(|grid| grid.picture().area());
        (area.width, area.height)
    }
}

impl Screens {
    /// The machine's stage.
    pub(crate) fn stage(&self, machine: &MachineName) -> Arc<Stage> {
        let mut stages = hold(&self.0);
        stages.retain(|_, stage| stage.strong_count() > 0);
        if let Some(stage) = stages.get(machine).and_then(Weak::upgrade) {
            return stage;
        }
        let stage = Arc::new(Stage {
            machine: machine.clone(),
            shown: tokio::sync::Mutex::default(),
            clipboard: Mutex::default(),
            audience: Audience::default(),
            hands: tokio::sync::Mutex::default(),
        });
        stages.insert(machine.clone(), Arc::downgrade(&stage));
        stage
    }
}

impl Stage {
    /// What the machine shows; nothing while it does not run.
    ///
    /// # Errors
    /// It runs, and its screen cannot be had.
    pub(crate) async fn shown(&self, node: &Node) -> Result<Option<Arc<Shown>>> {
        let mut last = self.shown.lock().await;
        if let Some(shown) = last.upgrade().filter(|shown| !shown.display.is_closed()) {
            return Ok(Some(shown));
        }
        if node.live(&self.machine).is_none() {
            return Ok(None);
        }
        let home = node.home.machine(&self.machine);
        let touch = Touch::new(home.socket("keeper"));
        let asked = tokio::task::spawn_blocking(move || open(&home)).await;
        let (kind, socket) =
            asked.map_err(|e| Error::Internal(format!("a screen cannot be asked for: {e}")))??;
        let display = match kind {
            Kind::Dbus => Display::dbus(socket).await?,
            Kind::Vnc => Display::vnc(socket).await?,
        };
        let shown = Arc::new(Shown { display, studio: Studio::default(), touch });
        *last = Arc::downgrade(&shown);
        Ok(Some(shown))
    }

    /// The guest's clipboard, for all who watch: whether the machine runs or not, and from one run to the next.
    pub(crate) fn clipboard(&self, node: &Node) -> Arc<Clipboard> {
        let mut last = hold(&self.clipboard);
        last.upgrade().unwrap_or_else(|| {
            let socket = node.home.machine(&self.machine).socket(DESKTOP_SOCKET);
            let clipboard = Arc::new(Clipboard::open(socket));
            *last = Arc::downgrade(&clipboard);
            clipboard
        })
    }

    /// A small picture of what the machine shows, as a JPEG; nothing while it does not run.
    ///
    /// # Errors
    /// Those of [`Stage::shown`].
    pub(crate) async fn thumbnail(self: &Arc<Self>, node: &Node) -> Result<Option<Vec<u8>>> {
        let Some(shown) = self.shown(node).await? else { return Ok(None) };
        let picture: Picture = shown.display.screen().see(|grid| grid.picture().clone());
        let small = tokio::task::spawn_blocking(move || thumbnail(&picture, SMALL));
        let stage = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop((shown, stage));
        });
        let small =
            small.await.map_err(|e| Error::Internal(format!("a picture cannot be made small: {e}")))?;
        Ok(Some(small?))
    }
}

/// Asks for the machine's screen, and connects to what has it. Blocks.
fn open(home: &MachineHome) -> Result<(Kind, UnixStream)> {
    let (kind, socket) = client::open_screen(&home.socket("keeper"))?;
    match kind {
        Kind::Dbus => Ok((kind, socket)),
        Kind::Vnc => {
            let path = home.socket(VNC_SOCKET);
            let socket = UnixStream::connect(&path).map_err(Error::io("connect to", &path))?;
            Ok((kind, socket))
        }
    }
}
