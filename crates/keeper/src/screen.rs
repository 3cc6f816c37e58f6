//! What the machine shows, for whoever asks: QEMU itself tells.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use watari_qemu::{Display, Monitor};

use crate::Result;
use crate::instance::Instance;

/// Where the machine's screen is to be had.
#[derive(Clone)]
pub(crate) struct Source {
    monitor: Monitor,
    display: Display,
}

impl Source {
    pub(crate) fn of(instance: &Instance) -> Source {
        Source { monitor: instance.monitor.clone(), display: instance.record.display }
    }

    /// Shows it to whoever has the other end of `socket`, where QEMU can do that: as the server of a D-Bus connection of two.
    pub(crate) fn show_to(&self, socket: &UnixStream) -> Result<Display> {
        if self.display == Display::Dbus {
            self.monitor.serve_display(socket.as_fd())?;
        }
        Ok(self.display)
    }
}
