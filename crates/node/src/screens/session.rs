//! One viewer, from when it comes until it goes: pictures and news to it, what it does to the machine.
//!
//! ```text
//!  socket ──► hear ──► what it shows ──► show ──► updates, two at most ──► say ──► socket
//!               ├────► Hands ──► keeper    ▲                      news ──┤
//!               │       ▲                  └── the screen changes; what it shows roughly is due
//!               │       └── type_out: a stroke now and then, while there is text to type
//!               └────► Clipboard ──► copy ──► what is copied in the guest ┘
//! ```
//!
//! All of these go on side by side. A viewer that takes nothing more holds up what is for it, and nothing else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use watari_keeper::record::Phase;
use watari_screen::clipboard::Clipboard;
use watari_screen::{PACE, Prepared, Screen, Viewer};
use watari_types::MachineName;

use super::audience::{Control, Seat};
use super::message::{Heard, LAYOUTS, Said, State};
use super::{Shown, Stage};
use crate::Error;
use crate::node::{Node, hold};

/// How often it is looked whether a machine that shows nothing does by now, and what it is doing.
const LOOK: Duration = Duration::from_millis(100);
/// How long a viewer may take to hear that this is the end.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is due although nothing changes is not tried more often than this.
const BREATH: Duration = Duration::from_millis(15);

/// A viewer.
struct Session {
    node: Arc<Node>,
    machine: MachineName,
    stage: Arc<Stage>,
    seat: Seat,
    may_control: bool,
    clipboard: Arc<Clipboard>,
    /// What is shown to it.
    shown: Mutex<Option<Arc<Shown>>>,
    /// Why nothing is, though the machine runs.
    trouble: Mutex<String>,
    /// Tells that something is shown, or nothing any more.
    turned: Notify,
    /// Tells that there is something to type.
    planned: Notify,
    /// What it is told once.
    told: mpsc::Sender<Said>,
}

/// What a viewer says of itself.
enum Note {
    Shows(u32),
    IsSeen(bool),
}

/// Shows a machine to whoever is at the other end of `socket`, until that one goes away or it has `ended`.
pub(crate) async fn attend(
    node: Arc<Node>,
    machine: MachineName,
    may_control: bool,
    socket: WebSocket,
    ended: impl Future<Output = ()>,
) {
    let stage = node.screens.stage(&machine);
    let seat = stage.audience.enter(may_control);
    let clipboard = stage.clipboard(&node);
    let (told, said) = mpsc::channel(8);
    let session = Session {
        node,
        machine,
        stage,
        seat,
        may_control,
        clipboard,
        shown: Mutex::default(),
        trouble: Mutex::default(),
        turned: Notify::new(),
        planned: Notify::new(),
        told,
    };
    let (mut sink, stream) = socket.split();
    let (updates, ready) = mpsc::channel(1);
    let (notes, noted) = mpsc::channel(8);
    let (news, heard) = watch::channel(session.state());
    tokio::select! {
        () = say(&mut sink, ready, heard, said) => {}
        () = session.hear(stream, notes) => {}
        () = session.copy() => {}
        () = session.type_out() => {}
        () = session.show(noted, updates) => {}
        () = session.tell(news) => {}
        () = ended => {}
    }
    session.leave().await;
    // Then it knows that nothing went wrong. Whoever takes nothing any more is not waited for.
    let _ = tokio::time::timeout(GOODBYE, sink.close()).await;
}

/// Passes on what there is for the viewer, news first.
async fn say(
    sink: &mut SplitSink<WebSocket, Message>,
    mut updates: mpsc::Receiver<Vec<u8>>,
    mut news: watch::Receiver<State>,
    mut said: mpsc::Receiver<Said>,
) {
    news.mark_changed();
    loop {
        let message = tokio::select! {
            biased;
            Ok(()) = news.changed() => {
                text(&*news.borrow_and_update())
            }
            Some(said) = said.recv() => text(&said),
            Some(update) = updates.recv() => Message::Binary(update.into()),
            else => return,
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

fn text(what: &impl Serialize) -> Message {
    Message::Text(serde_json::to_string(what).unwrap_or_default().into())
}

impl Session {
    /// How things are for this viewer.
    fn state(&self) -> State {
        let doing = self.node.doing(&self.machine);
        let trouble = hold(&self.trouble).clone();
        State {
            machine: self.machine.to_string(),
            phase: doing.phase,
            shown: hold(&self.shown).is_some(),
            reason: if trouble.is_empty() { doing.reason } else { trouble },
            control: self.stage.audience.control(self.seat),
            may_control: self.may_control,
            viewers: self.stage.audience.len(),
            clipboard: *self.clipboard.has_agent().borrow(),
            layouts: &LAYOUTS,
        }
    }

    /// Tells how things are whenever that is otherwise.
    async fn tell(&self, news: watch::Sender<State>) {
        let mut changes = self.stage.audience.changes();
        loop {
            news.send_if_modified(|last| {
                let state = self.state();
                std::mem::replace(last, state) != *last
            });
            // An error would mean that the stage is gone, which this session holds.
            tokio::select! {
                _ = changes.changed() => {}
                () = self.turned.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Hears what the viewer says, and does that. Whoever says what is nothing is told so and goes.
    async fn hear(&self, mut stream: SplitStream<WebSocket>, notes: mpsc::Sender<Note>) {
        while let Some(Ok(message)) = stream.next().await {
            let heard = match message {
                Message::Text(text) => parse(&text),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Binary(_) | Message::Close(_) => None,
            };
            let Some(heard) = heard else { return };
            let note = match heard {
                Heard::Shown { number } => Note::Shows(number),
                Heard::Visible { visible } => Note::IsSeen(visible),
                Heard::Take => {
                    if self.stage.audience.take(self.seat) {
                        self.let_go().await;
                    }
                    continue;
                }
                Heard::Clipboard { text } => {
                    self.paste(&text);
                    continue;
                }
                act => {
                    self.act(&act).await;
                    continue;
                }
            };
            if notes.send(note).await.is_err() {
                return;
            }
        }
    }

    /// Passes on what is copied in the guest, as long as the viewer is in control.
    async fn copy(&self) {
        let mut copied = self.clipboard.copied();
        // An error would mean that the clipboard is gone, which this session holds.
        while copied.changed().await.is_ok() {
            let newest = copied.borrow_and_update().clone();
            if let Some(newest) = newest
                && self.stage.audience.control(self.seat) == Control::Yours
                && self.told.send(newest.into()).await.is_err()
            {
                return;
            }
        }
    }

    /// Has the guest paste the viewer's text, if that counts.
    fn paste(&self, text: &str) {
        if self.stage.audience.may_act(self.seat)
            && let Err(refusal) = self.clipboard.set(text)
        {
            self.refuse(refusal.into());
        }
    }

    /// Says that something is not done. Whoever does not take eight of them does not read the ninth.
    fn refuse(&self, why: Said) {
        let _ = self.told.try_send(why);
    }

    /// Does to the machine what the viewer does, if that counts.
    async fn act(&self, heard: &Heard) {
        let Some(shown) = hold(&self.shown).clone() else { return };
        if !self.stage.audience.may_act(self.seat) {
            return;
        }
        let mut hands = self.stage.hands.lock().await;
        if let Heard::Type { text, layout } = heard {
            match hands.plan(text, layout) {
                Ok(()) => self.planned.notify_one(),
                Err(error) => self.refuse(Said::NotTyped { reason: error.to_string() }),
            }
        } else if let Err(error) = hands.act(&shown, heard).await {
            tracing::debug!(machine = %self.machine, error = &error as &dyn std::error::Error, "not done");
        }
    }

    /// Types what there is to type, for as long as this viewer is in control.
    async fn type_out(&self) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.planned.notified().await;
            while self.type_on().await {
                pace.tick().await;
            }
        }
    }

    /// Types one stroke, unless the guest is held. Returns whether there may be more to type.
    async fn type_on(&self) -> bool {
        let Some(shown) = hold(&self.shown).clone() else { return false };
        if self.stage.audience.control(self.seat) != Control::Yours {
            return false;
        }
        let is_held =
            || self.node.live(&self.machine).is_some_and(|live| live.status().phase == Phase::Paused);
        if is_held() {
            return true;
        }
        let mut hands = self.stage.hands.lock().await;
        match hands.stroke(&shown).await {
            Ok(is_typing) => is_typing,
            Err(_) if is_held() => true,
            Err(error) => {
                tracing::debug!(machine = %self.machine, error = &error as &dyn std::error::Error, "not typed");
                hands.stop_typing();
                false
            }
        }
    }

    /// Lets go of what is held of the keyboard and the pointer.
    async fn let_go(&self) {
        let shown = hold(&self.shown).clone();
        let mut hands = self.stage.hands.lock().await;
        match shown {
            Some(shown) => drop(hands.release(&shown).await),
            None => hands.forget(),
        }
    }

    async fn leave(&self) {
        if self.stage.audience.leave(self.seat) {
            self.let_go().await;
        }
    }

    fn turn_to(&self, shown: Option<Arc<Shown>>) {
        *hold(&self.shown) = shown;
        self.turned.notify_one();
    }

    /// Shows the machine, one run of it after the other.
    async fn show(&self, mut notes: mpsc::Receiver<Note>, updates: mpsc::Sender<Vec<u8>>) {
        let (mut viewer, mut is_seen) = (Viewer::default(), true);
        loop {
            let shown = self.stage.shown(&self.node).await;
            *hold(&self.trouble) = shown.as_ref().err().map(why).unwrap_or_default();
            if let Ok(Some(shown)) = shown {
                self.turn_to(Some(Arc::clone(&shown)));
                viewer.begin_anew();
                let mut showing = Showing { viewer: &mut viewer, is_seen: &mut is_seen, shown: &shown };
                if showing.go_on(&mut notes, &updates).await.is_none() {
                    return;
                }
                self.turn_to(None);
                self.stage.hands.lock().await.forget();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                note = notes.recv() => match note {
                    Some(note) => heed(note, &mut viewer, &mut is_seen),
                    None => return,
                },
            }
        }
    }
}

/// One run of a machine, as it is shown to one viewer.
struct Showing<'a> {
    viewer: &'a mut Viewer,
    is_seen: &'a mut bool,
    shown: &'a Shown,
}

impl Showing<'_> {
    /// Sends what there is to send until the run is over; nothing if the viewer is gone.
    async fn go_on(
        &mut self,
        notes: &mut mpsc::Receiver<Note>,
        updates: &mpsc::Sender<Vec<u8>>,
    ) -> Option<()> {
        let mut changes = self.shown.display.screen().changes();
        loop {
            changes.mark_unchanged();
            while let Some(prepared) = self.next() {
                match tokio::task::spawn_blocking(move || prepared.message()).await {
                    Ok(Ok(update)) => {
                        self.viewer.sent(update.len() as u64);
                        updates.send(update).await.ok()?;
                    }
                    failed => {
                        tracing::error!(?failed, "an update could not be made");
                        self.viewer.begin_anew();
                        break;
                    }
                }
            }
            let due = self.due();
            tokio::select! {
                note = notes.recv() => heed(note?, self.viewer, self.is_seen),
                changed = changes.changed() => changed.ok()?,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = self.shown.display.closed() => return Some(()),
            }
        }
    }

    fn next(&mut self) -> Option<Prepared> {
        if !*self.is_seen {
            return None;
        }
        self.shown.display.screen().see(|grid| {
            let (number, plan) = self.viewer.next(grid, Screen::now())?;
            Some(self.shown.studio.prepare(number, grid, plan))
        })
    }

    /// How long until there is something to send although nothing changes.
    fn due(&self) -> Option<Duration> {
        let due = self.shown.display.screen().see(|grid| self.viewer.due(grid)).filter(|_| *self.is_seen)?;
        Some(Duration::from_millis(due.saturating_sub(Screen::now())).max(BREATH))
    }
}

fn heed(note: Note, viewer: &mut Viewer, is_seen: &mut bool) {
    match note {
        Note::Shows(number) => viewer.acknowledge(number, Screen::now()),
        Note::IsSeen(seen) => *is_seen = seen,
    }
}

fn parse(text: &str) -> Option<Heard> {
    serde_json::from_str(text)
        .inspect_err(|error| tracing::debug!(%error, "a viewer says what is nothing"))
        .ok()
}

/// Why nothing is shown, in a line.
fn why(error: &Error) -> String {
    let report = error.report();
    if report.hint.is_empty() { report.message } else { format!("{}: {}", report.message, report.hint) }
}
