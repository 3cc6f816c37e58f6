//! The way to a machine's keyboard and pointer, which its keeper has.

use std::path::PathBuf;
use std::sync::mpsc;

use tokio::sync::oneshot;
use watari_keeper::client;
use watari_qemu::Input;
use watari_types::{ErrorKind, ErrorReport};

use crate::{Error, Result};

/// A thread that speaks to whatever keeper the machine has. It ends when this is dropped.
pub(crate) struct Touch(mpsc::Sender<Order>);

/// Something to be done, and who waits for it.
struct Order {
    input: Input,
    done: oneshot::Sender<Result<(), ErrorReport>>,
}

impl Touch {
    /// That of the machine whose keeper listens at that socket.
    ///
    /// # Errors
    /// [`Error::Internal`], if there can be no thread.
    pub(super) fn new(keeper: PathBuf) -> Result<Touch> {
        let (orders, ordered) = mpsc::channel();
        std::thread::Builder::new()
            .name("touch".into())
            .spawn(move || carry_out(&keeper, &ordered))
            .map_err(|e| Error::Internal(format!("there is no thread for a keyboard: {e}")))?;
        Ok(Touch(orders))
    }

    /// Does something with them, and waits until it is done.
    ///
    /// # Errors
    /// It was not done: the guest is held, its pointer is of the other kind, or it is about to end.
    pub(super) async fn act(&self, input: Input) -> Result<()> {
        let gone = |_| Error::Internal("a keyboard's thread is gone".to_owned());
        let (done, outcome) = oneshot::channel();
        self.0
            .send(Order { input, done })
            .map_err(|_| Error::Internal("a keyboard's thread is gone".to_owned()))?;
        Ok(outcome.await.map_err(gone)??)
    }
}

fn carry_out(keeper: &std::path::Path, ordered: &mpsc::Receiver<Order>) {
    let mut way = None;
    for Order { input, done } in ordered {
        let mut outcome = act(&mut way, keeper, input);
        // One that has died is replaced. What was said to it is said again: keys and buttons that are pressed twice are the same.
        if outcome.as_ref().is_err_and(|error| error.kind == ErrorKind::NoKeeper) {
            way = None;
            outcome = act(&mut way, keeper, input);
        }
        let _ = done.send(outcome);
    }
}

fn act(way: &mut Option<client::Touch>, keeper: &std::path::Path, input: Input) -> Result<(), ErrorReport> {
    let way = match way {
        Some(way) => way,
        None => way.insert(client::Touch::open(keeper)?),
    };
    way.act(input)
}
