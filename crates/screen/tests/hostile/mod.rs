//! What QEMU may say of its display, whatever it is: one input, and what must hold.
//!
//! Nobody panics, and it ends when QEMU hangs up. What is shown then is what a reader makes of it that has everything before it, up to
//! the first thing that is wrong: [`rfb`] for what a VNC server says, [`dbus`] for what is called over D-Bus.

mod dbus;
mod rfb;

use std::future::Future;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use watari_screen::{Display, Picture};

/// How long anything may take before it counts as hanging; never waited for otherwise.
const PATIENCE: Duration = Duration::from_secs(20);
/// Screens that have more pixels in all would take long, and show nothing else.
const MOST_PIXELS: usize = 1 << 22;

/// Panics of any thread so far.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// How QEMU is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Rfb,
    Dbus,
}

impl Subject {
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) const ALL: [Subject; 2] = [Subject::Rfb, Subject::Dbus];

    /// What it is called on the command line, and its corpus's folder.
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Rfb => "rfb",
            Subject::Dbus => "dbus",
        }
    }

    /// Inputs to begin with.
    #[allow(dead_code, reason = "a fuzzer has its corpus")]
    pub(crate) fn seeds(self) -> Vec<(&'static str, Vec<u8>)> {
        match self {
            Subject::Rfb => rfb::seeds(),
            Subject::Dbus => dbus::seeds(),
        }
    }
}

/// Panics unless all holds that must.
pub(crate) fn face(subject: Subject, input: &[u8]) {
    match subject {
        Subject::Rfb => rfb::face(input),
        Subject::Dbus => dbus::face(input),
    }
}

/// What is left of an input.
struct Said<'a>(&'a [u8]);

impl<'a> Said<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Of so many bytes, the highest first.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

/// What comes of it, if it ends and nobody panics.
fn withstand<T>(it: impl Future<Output = T>) -> T {
    count_panics();
    let panics = PANICS.load(Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, it).await.expect("it ends when QEMU hangs up") });
    drop(runtime);
    assert_eq!(PANICS.load(Ordering::SeqCst), panics, "somebody panicked");
    outcome
}

/// A panic of a task would otherwise be seen by nobody.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
}

/// What a display shows when QEMU has hung up.
async fn last(display: &Display) -> Picture {
    display.closed().await;
    assert!(display.is_closed());
    display.screen().see(|grid| grid.picture().clone())
}
