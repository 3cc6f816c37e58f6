//! How much is sent at once: CUBIC, as QUIC's library has it, but that it begins anew after a while with little to say.
//!
//! What a connection has learned of its line while it said a word each second is worth nothing to a transfer: one lost word halves
//! a window that nobody has filled, and from there it takes CUBIC a minute to 1 Gbit/s over 150 ms. The library
//! ([noq](https://docs.rs/noq-proto) 1.4) hides that by accident: its clock goes on meanwhile, and the window follows it faster
//! than the line has been asked, overruns it, and does so again.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::RttEstimator;
use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// After how long with no more to send than the window allows nothing is known of the line.
const STALE: Duration = Duration::from_secs(10);

/// Makes one for each way to a node.
#[derive(Debug)]
pub(crate) struct Fresh(Arc<CubicConfig>);

impl Fresh {
    /// Begins with so many bytes.
    pub(crate) fn new(first_window: u64) -> Fresh {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(first_window);
        Fresh(Arc::new(cubic))
    }

    fn begin(&self, now: Instant, mtu: u16) -> Cubic {
        let config = Arc::clone(&self.0);
        Cubic { cubic: Arc::clone(&config).build(now, mtu), config, mtu, busy: now }
    }
}

impl ControllerFactory for Fresh {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(self.begin(now, mtu))
    }
}

#[derive(Debug)]
struct Cubic {
    cubic: Box<dyn Controller>,
    config: Arc<CubicConfig>,
    mtu: u16,
    /// When it was last heard that a full window's packets had arrived.
    busy: Instant,
}

impl Cubic {
    /// It is heard that something has arrived, of a full window.
    fn hear_of_a_full_window(&mut self, now: Instant) {
        if now.saturating_duration_since(self.busy) > STALE {
            self.cubic = Arc::clone(&self.config).build(now, self.mtu);
        }
        self.busy = now;
    }
}

impl Controller for Cubic {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        packet: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        if !app_limited {
            self.hear_of_a_full_window(now);
        }
        self.cubic.on_ack(now, sent, bytes, packet, app_limited, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent, is_ecn, lost_bytes, largest_lost);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.cubic.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.cubic.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (cubic, config) = (self.cubic.clone_box(), Arc::clone(&self.config));
        Box::new(Cubic { cubic, config, mtu: self.mtu, busy: self.busy })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_long_ago_is_forgotten_and_what_was_lost_now_is_not() {
        const FIRST: u64 = 38_400;
        let began = Instant::now();
        let mut control = Fresh::new(FIRST).begin(began, 1452);
        let lose = |control: &mut Cubic, now| control.on_congestion_event(now, now, false, false, 1452, 1);
        assert_eq!(control.window(), FIRST);

        let lost = began + Duration::from_secs(20);
        lose(&mut control, lost);
        let cut = control.window();
        assert!(cut < FIRST && control.metrics().ssthresh == Some(cut), "{cut}");

        // A transfer, half a minute later.
        let transfer = lost + Duration::from_secs(30);
        control.hear_of_a_full_window(transfer);
        assert_eq!((control.window(), control.metrics().ssthresh), (FIRST, Some(u64::MAX)));

        lose(&mut control, transfer + Duration::from_secs(1));
        for second in 2..60 {
            control.hear_of_a_full_window(transfer + Duration::from_secs(second));
            assert_eq!(control.window(), cut);
        }
    }
}
