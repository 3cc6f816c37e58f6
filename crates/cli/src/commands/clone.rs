//! `watari clone`

use clap::{Args, ValueEnum};
use watari_keeper::record::Phase;
use watari_node::api::{CloneNetwork, CloneRequest, Cloned};

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;
use crate::format::milliseconds;

/// Make a new machine of a snapshot
#[derive(Args)]
pub(crate) struct Clone {
    /// The snapshot
    rev: String,
    /// The new machine's name
    new: String,
    /// What becomes of its network card
    #[arg(long, value_enum, default_value_t = Network::Unplugged)]
    network: Network,
    /// Run it at once
    #[arg(long)]
    start: bool,
    /// Hold it where the snapshot was taken, with a socket for gdb; gdb or `resume` runs it
    #[arg(long, conflicts_with = "start")]
    gdb: bool,
}

#[derive(ValueEnum, Clone, Copy)]
enum Network {
    /// Its cable is pulled
    Unplugged,
    /// It is replaced by a card with a new address
    Fresh,
    /// It keeps the original's address
    Same,
}

impl Clone {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let new = machine_name(&self.new)?;
        let client = context.client()?;
        let origin = client.machine_of(&self.rev)?;
        let network = match self.network {
            Network::Unplugged => CloneNetwork::Unplugged,
            Network::Fresh => CloneNetwork::Fresh,
            Network::Same => CloneNetwork::Same,
        };
        let request = CloneRequest {
            rev: self.rev.clone(),
            name: new.to_string(),
            network,
            start: self.start,
            gdb: self.gdb,
        };
        let cloned: Cloned = client.post_with(&format!("machines/{origin}/clone"), &request)?;
        context.out.result(&cloned, |Cloned { ready, gdb }| {
            let took = milliseconds(ready.ready_ms);
            match gdb {
                Some(socket) => format!(
                    "{new} is a clone of {}, held after {took}; attach with: gdb -ex 'target remote {}'",
                    self.rev,
                    socket.display()
                ),
                None if ready.machine.state == Phase::Suspended => {
                    format!("{new} is a clone of {}, made in {took}; `watari start {new}` runs it", self.rev)
                }
                None => format!("{new} is a clone of {} and runs after {took}", self.rev),
            }
        })
    }
}
