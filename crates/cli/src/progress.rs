//! A bar for work that takes longer than a second, on a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use watari_keeper::protocol::Progress;

/// Work that is done sooner needs no bar.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that is not seen until it is shown, and is gone when dropped.
pub(crate) struct Bar {
    bar: ProgressBar,
    is_shown: bool,
}

impl Bar {
    pub(crate) fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        Bar { bar, is_shown: false }
    }

    /// Shows the bar, if there is a terminal to show it on.
    pub(crate) fn show(&mut self) {
        if !self.is_shown && std::io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(100));
        }
        self.is_shown = true;
    }

    /// What moves the bar on, from wherever the news arrives.
    pub(crate) fn mover(&self) -> impl Fn(&Progress) + Send + Sync + use<> {
        let bar = self.bar.clone();
        move |progress| {
            bar.set_message(progress.step.clone());
            if progress.total > 0 {
                bar.set_style(style("{bar:30} {percent:>3} % {msg} {elapsed}, {eta} left"));
                if progress.done < bar.position() {
                    // Another step: what the one before took says nothing about it.
                    bar.reset_eta();
                }
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
