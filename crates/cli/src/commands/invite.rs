//! `watari invite`

use std::time::Duration;

use clap::Args;
use watari_node::api::{Invitation, InviteRequest};

use super::Context;
use crate::failure::Result;

/// Make a ticket that lets another node into this one's mesh
///
/// The ticket works once, until it expires. Whoever has it can join: hand it over as you would a password. A node that is in no
/// mesh begins one, and from then on listens for the others.
#[derive(Args)]
pub(crate) struct Invite {
    /// How long the ticket is valid: 30m, 2h, 1day
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    valid: Duration,
}

impl Invite {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let request = InviteRequest { valid_s: Some(self.valid.as_secs()) };
        let invitation: Invitation = context.client()?.post_with("nodes/invite", &request)?;
        context.out.result(&invitation, |invitation| invitation.ticket.clone())
    }
}
